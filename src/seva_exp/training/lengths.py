"""How many tokens each row has, before anything is trained: rows that do not fit are refused, and
nothing is ever cut (a cut prompt would lose image tokens)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.core.spec import Json
from seva_exp.training.collate import FinetuneExample, Preference

LONGEST = 5
"""Rows that a summary names."""
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

    def __str__(self) -> str:
        return f"{self.id} ({self.image} image + {self.prompt - self.image} text + {self.answer})"


def check_lengths(
    vlm: VisionLanguageModel, rows: Sequence[Preference | FinetuneExample], label: str
) -> Json:
    """The summary of all rows' lengths. Raises StageError naming the rows that are longer than the
    model's context."""
    found = list(lengths(vlm, rows))
    context = context_of(vlm)
    if too_long := [row for row in found if context and row.total > context]:
        raise StageError(
            f"{label}: {len(too_long)} of {len(found)} rows do not fit the model's context of "
            f"{context} tokens: {', '.join(map(str, too_long))} answer tokens. Nothing is cut: "
            "lower generation.max_new_tokens, leave these samples out of the data, or use smaller "
            "pictures."
        )
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
        found = [Length(row.id, prompts[row.prompt, size], len(image.placeholders), longest)]
        if isinstance(row, Preference) and not same:
            for shown in (make() for make in row.images):
                prompt = len(vlm.encode(shown, row.prompt).ids)
                found.append(Length(row.id, prompt, len(shown.placeholders), len(row.chosen)))
        yield max(found, key=attrgetter("total"))


def depends_on_size(vlm: VisionLanguageModel) -> bool:
    """Whether a picture's number of tokens depends on its size or shape."""
    from PIL import Image

    blank = (Image.new("RGB", size) for size in PROBES)
    return len({len(vlm.encode_image(picture).placeholders) for picture in blank}) > 1


def context_of(vlm: VisionLanguageModel) -> int | None:
    """Positions that the language model was made for; None where its config does not say."""
    return getattr(vlm.model.config.get_text_config(), "max_position_embeddings", None)
