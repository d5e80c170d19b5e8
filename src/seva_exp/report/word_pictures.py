"""An explained sample as one picture, for trackers: what a model saw, its answer's words shaded by
g as base and aligned model read them, and where the weightiest word rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from seva_exp.core.printable import one_line
from seva_exp.grounding.rows import ExplainedAnswer, ExplainedSample, WordMap
from seva_exp.inputs.images import UnusableImage, open_image
from seva_exp.report.word_maps import (
    BELOW,
    HALF,
    LESS,
    MORE,
    Field,
    field,
    painted,
    region,
    shares_of,
    tinted,
    veiled,
)
from seva_exp.report.words import chosen, nats, pieces, shade

PANEL, GAP, LINE = 224, 16, 24
"""Pixels: a panel's width, what is between, a line of text."""
COLUMNS = 4
LONGEST = 12
"""Lines of text that an answer has at most."""
PAPER, INK, SOFT = (255, 255, 255), (29, 32, 36), (91, 98, 109)
SHADES = {"1": (219, 229, 251), "2": (159, 187, 244), "3": (44, 85, 201)}
HATCH_STEP = 6

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Explanation:
    """A drawn sample, and what it tells in words."""

    image: Image.Image
    caption: str


def explanation(
    sample: ExplainedSample, pictures: tuple[Path | None, Path | None], rests: float, view: str
) -> Explanation:
    """``pictures``: what the models saw of it, and what the run's negative view (``view``) shows
    them, if there is one; ``rests``: nats of g from which a word rests on the picture."""
    seen = [found for one in pictures if (found := _opened(one))]
    parts = [_asked(sample)]
    for answer in sample.answers:
        parts += [_reading(answer, model, rests) for model in ("base", "aligned")]
        parts += _panels(answer, seen, view)
    height = sum(one.height for one in parts) + GAP * (len(parts) + 1)
    sheet = Image.new("RGB", (COLUMNS * (PANEL + GAP) + GAP, height), PAPER)
    at = GAP
    for one in parts:
        sheet.paste(one, (GAP, at))
        at += one.height + GAP
    return Explanation(sheet, _caption(sample))


def _opened(path: Path | None) -> Image.Image | None:
    try:
        return open_image(path) if path else None
    except (UnusableImage, OSError):
        return None


def _font(size: int = 16) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, so that a machine without fonts draws the same."""
    return ImageFont.load_default(size)


def _short(text: str, most: int = 80) -> str:
    return one_line(text)[:most]


def _strip(lines: int, extra: int = 0) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    size = COLUMNS * (PANEL + GAP) - GAP, lines * LINE + extra
    image = Image.new("RGB", size, PAPER)
    return image, ImageDraw.Draw(image)


def _asked(sample: ExplainedSample) -> Image.Image:
    font = _font()
    words = [f"{part} " for part in one_line(sample.question)[:2000].split(" ")]
    rows = _rows(words, font, COLUMNS * (PANEL + GAP) - GAP)[:4]
    image, draw = _strip(len(rows) + 1)
    for number, row in enumerate(rows):
        draw.text((0, number * LINE), "".join(words[i] for i, _ in row), INK, font)
    where = f"{sample.status} | {_short(sample.type)} | target: {_short(sample.target)}"
    draw.text((0, len(rows) * LINE), where, SOFT, _font(13))
    return image


def _reading(answer: ExplainedAnswer, model: str, rests: float) -> Image.Image:
    """The answer with each word shaded by what it gets of the picture under one model."""
    font, left = _font(), 96
    shades = [shade(getattr(word, model).g, rests) for word in answer.words]
    parts = pieces(answer, shades)
    texts = [_short(str(part["text"])) for part in parts]
    rows = _rows(texts, font, COLUMNS * (PANEL + GAP) - GAP - left)[:LONGEST]
    image, draw = _strip(max(1, len(rows)))
    draw.text((0, 2), model, SOFT, _font(13))
    for number, row in enumerate(rows):
        for i, x in row:
            tone = str(parts[i].get("shade", ""))
            width = font.getlength(texts[i])
            box = (left + x - 1, number * LINE, left + x + width + 1, number * LINE + LINE - 3)
            if tone.startswith("more"):
                draw.rectangle(box, SHADES[tone[-1]])
            elif tone:
                _hatch(image, box, _whole(box))
            ink = PAPER if tone == "more-3" else INK
            draw.text((left + x, number * LINE), texts[i], ink, font)
    return image


def _rows(
    texts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[list[tuple[int, float]]]:
    """Which of the texts stand in each line, and where."""
    rows: list[list[tuple[int, float]]] = [[]]
    at = 0.0
    for number, text in enumerate(texts):
        size = font.getlength(text)
        if at + size > width and rows[-1]:
            rows.append([])
            at = 0.0
        rows[-1].append((number, at))
        at += size
    return rows


def _panels(answer: ExplainedAnswer, seen: Sequence[Image.Image], view: str) -> list[Image.Image]:
    """The picture, and the map of the weightiest word under base, aligned, and the difference."""
    number = chosen(answer)
    found = next((one for one in answer.maps if one.word == number), None)
    if not seen or not found:
        return []
    height = round(PANEL * seen[0].height / seen[0].width)
    image, draw = _strip(1, height)
    clean = seen[0].resize((PANEL, height))
    image.paste(clean, (0, 0))
    if len(seen) > 1:  # a corner of it as the view shows it
        corner = seen[1].resize((PANEL, height)).crop((PANEL // 2, 0, PANEL, height))
        image.paste(corner, (PANEL // 2, 0))
    draw.text(
        (0, height + 4),
        f"clean | {_short(view, 24)}" if len(seen) > 1 else "clean",
        SOFT,
        _font(12),
    )
    word = _short(answer.words[number].text, 14)
    for column, (name, one, colour) in enumerate(_fields(found), start=1):
        x = column * (PANEL + GAP)
        image.paste(_mapped(clean, one, colour), (x, 0))
        draw.text((x, height + 4), f"{name}: {word}", SOFT, _font(12))
    return [image]


def _fields(found: WordMap) -> list[tuple[str, Field, bool]]:
    """Name, values, and whether it is a difference."""
    base, aligned, change, _ = shares_of(found)
    named = (("base", base), ("aligned", aligned), ("difference", change))
    return [(name, field(found.grid, one), name == "difference") for name, one in named]


def _mapped(clean: Image.Image, one: Field, difference: bool) -> Image.Image:
    image = clean.copy()
    over = painted(one, tinted if difference else veiled).resize(image.size)
    image.paste(over.convert("RGB"), (0, 0), over.getchannel("A"))
    width, height = image.size
    mask = Image.new("1", image.size)
    for part in region(one, BELOW)[0]:
        ImageDraw.Draw(mask).polygon([(x * width, y * height) for x, y in part], 1)
    _hatch(image, (0, 0, width, height), mask)
    draw = ImageDraw.Draw(image)
    lines = [[(x * width, y * height) for x, y in line] for line in region(one, HALF)[1]]
    for colour, size in ((PAPER, 5), (MORE, 2)):
        for points in lines:
            draw.line(points, colour, size, joint="curve")
    return image


def _whole(box: Box) -> Image.Image:
    return Image.new("1", (round(box[2] - box[0]), round(box[3] - box[1])), 1)


def _hatch(image: Image.Image, box: Box, mask: Image.Image) -> None:
    """Lines across the part of a box that a mask of its size has."""
    width, height = mask.size
    lines = Image.new("1", mask.size)
    draw = ImageDraw.Draw(lines)
    for start in range(-height, width, HATCH_STEP):
        draw.line([(start, height), (start + height, 0)], 1)
    both = Image.new("1", mask.size)
    both.paste(lines, (0, 0), mask)
    image.paste(LESS, (round(box[0]), round(box[1])), both)


def _caption(sample: ExplainedSample) -> str:
    lines = [f"{sample.id} ({sample.status}): {sample.question}"]
    for answer in sample.answers:
        lines.append(f"{answer.by}: {answer.text}")
        for one in answer.maps:
            word = answer.words[one.word]
            change = f"g {nats(word.base.g)}, aligned {nats(word.aligned.g)} nats"
            lines.append(f"  {word.text}: {change}")
    if sample.agreement:
        both = sample.agreement.base, sample.agreement.aligned
        base, aligned = (f"{one.equal} of {one.asked} agree" for one in both)
        lines.append(f"base: {base}; aligned: {aligned}")
    return "\n".join(lines)
