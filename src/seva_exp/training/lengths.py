"""How many tokens each row has, before anything is trained: rows that do not fit are left out by
name, and nothing is ever cut (a cut prompt would lose image tokens)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from PIL import Image

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import TOO_LONG, EncodedImage, VisionLanguageModel
from seva_exp.core.records import Drop
from seva_exp.core.spec import Json
from seva_exp.models.context import context_of
from seva_exp.training.collate import FinetuneExample, Preference

Row = TypeVar("Row", bound=Preference | FinetuneExample)
LONGEST, NAMED = 5, 20
"""Rows that a summary, and that an error names."""
PROBES = ((64, 64), (1280, 320), (1280, 1280))
"""Sizes in pixels that no family which looks at size takes for one."""


@dataclass(frozen=True)
class Length:
    """Tokens of one row: the prompt's, image tokens included; of these the image's; and those of
    its longest answer."""

    id: str
    prompt: int
    image: int
    answer: int

    @property
    def total(self) -> int:
        return self.prompt + self.answer

    @property
    def words(self) -> str:
        """Of what it consists."""
        text = self.prompt - self.image
        return f"{self.image} image + {text} text + {self.answer} answer tokens"


def check_lengths(
    vlm: VisionLanguageModel, rows: Sequence[Preference | FinetuneExample], label: str
) -> Json:
    """The summary of all rows' lengths. Raises StageError naming rows that are longer than the
    model's context."""
    _, too_long, summary = fitting(vlm, rows, label)
    if too_long:
        raise _refused(label, too_long, len(rows), context_of(vlm))
    return summary


def fitting(
    vlm: VisionLanguageModel, rows: Sequence[Row], label: str
) -> tuple[list[Row], list[Drop], Json]:
    """The rows that fit the model's context, the others as drops, and a summary of the lengths of
    those that fit. Raises StageError where none does."""
    context, kept, found, too_long = context_of(vlm), [], [], []
    for row, length in zip(rows, lengths(vlm, rows), strict=True):
        if context and length.total > context:
            too_long.append(Drop(row.id, TOO_LONG, length.words))
        else:
            kept.append(row)
            found.append(length)
    if not kept:
        raise _refused(label, too_long, len(rows), context)
    return kept, too_long, _summary(found, context)


def left_out(drops: Sequence[Drop]) -> Json:
    """Of rows that are not trained on, for a summary: how many for which reason, and the first of
    them by name. Empty where there are none."""
    if not drops:
        return {}
    lines = [f"{drop.sample_id}: {drop.reason} ({drop.detail})" for drop in drops[:NAMED]]
    return {"dropped": dict(Counter(drop.reason for drop in drops)), "left_out": lines}


def _refused(label: str, too_long: Sequence[Drop], rows: int, context: int | None) -> StageError:
    named = [f"{drop.sample_id} ({drop.detail})" for drop in too_long[:NAMED]]
    more = f" and {len(too_long) - NAMED} more" if len(too_long) > NAMED else ""
    return StageError(
        f"{label}: {len(too_long)} of {rows} rows do not fit the model's context of {context} "
        f"tokens: {', '.join(named)}{more}. Nothing is cut: lower generation.max_new_tokens, or "
        "use smaller pictures."
    )


def _summary(found: Sequence[Length], context: int | None) -> Json:
    totals = sorted(row.total for row in found)
    return {
        "tokens_longest": totals[-1],
        "tokens_mean": round(sum(totals) / len(totals), 1),
        "tokens_p95": totals[math.ceil(0.95 * len(totals)) - 1],
        "context": context,
        "longest_rows": {
            row.id: row.total
            for row in sorted(found, key=attrgetter("total"), reverse=True)[:LONGEST]
        },
    }


def lengths(
    vlm: VisionLanguageModel, rows: Iterable[Preference | FinetuneExample]
) -> Iterable[Length]:
    """One per row: of its answers with the clean picture, and of the chosen one with those of its
    negative views, the longest. The processor sees one clean picture of each size, and the
    views' where a picture's tokens depend on its size; the vision tower none."""
    image_of_size: dict[tuple[int, int], EncodedImage] = {}
    prompts: dict[tuple[str, tuple[int, int]], int] = {}
    same = not depends_on_size(vlm)
    for row in rows:
        size = row.size() if row.size else row.load().size
        if size not in image_of_size:
            # Without its pixels, of which large data would keep too many.
            encoded = vlm.encode_image(row.load())
            image_of_size[size] = EncodedImage({}, encoded.placeholders, encoded.types)
        image = image_of_size[size]
        if (row.prompt, size) not in prompts:
            prompts[row.prompt, size] = len(vlm.encode(image, row.prompt).ids)
        answers = (
            (row.response,) if isinstance(row, FinetuneExample) else (row.chosen, *row.rejected)
        )
        longest = max(map(len, answers))
        begun = len(row.context) if isinstance(row, Preference) else 0
        before = prompts[row.prompt, size] + begun
        found = [Length(row.id, before, len(image.placeholders), longest)]
        if isinstance(row, Preference) and not same:
            for k, shown in enumerate(make() for make in row.images):
                prompt = len(row.asked(vlm, shown).ids)
                given = row.rejected[row.image_rejected[k]] if row.crossed else ()
                most = max(len(row.chosen), len(given))
                found.append(Length(row.id, prompt, len(shown.placeholders), most))
        yield max(found, key=attrgetter("total"))


def depends_on_size(vlm: VisionLanguageModel) -> bool:
    """Whether a picture's number of tokens depends on its size or shape."""
    blank = (Image.new("RGB", size) for size in PROBES)
    return len({len(vlm.encode_image(picture).placeholders) for picture in blank}) > 1
