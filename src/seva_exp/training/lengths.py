"""How many tokens each row has, before anything is trained: rows that do not fit are refused, and
nothing is ever cut (a cut prompt would lose image tokens)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from seva_exp.errors import StageError
from seva_exp.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.spec import Json
from seva_exp.training.collate import Example, Preference

LONGEST = 5
"""Rows that a summary names."""


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
    vlm: VisionLanguageModel, rows: Sequence[Preference | Example], label: str
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


def lengths(vlm: VisionLanguageModel, rows: Iterable[Preference | Example]) -> Iterable[Length]:
    """One per row. The processor sees one picture of each size; the vision tower none. A negative
    view's picture is taken to be as long as the clean one."""
    image_of_size: dict[tuple[int, int], EncodedImage] = {}
    prompts: dict[tuple[str, tuple[int, int]], int] = {}
    for row in rows:
        size = row.size() if row.size else row.load().size
        if size not in image_of_size:
            # Without its pixels, of which large data would keep too many.
            encoded = vlm.encode_image(row.load())
            image_of_size[size] = EncodedImage({}, encoded.placeholders, encoded.types)
        image = image_of_size[size]
        if (row.prompt, size) not in prompts:
            prompts[row.prompt, size] = len(vlm.encode(image, row.prompt).ids)
        answers = (row.response,) if isinstance(row, Example) else (row.chosen, *row.rejected)
        longest = max(map(len, answers))
        yield Length(row.id, prompts[row.prompt, size], len(image.placeholders), longest)


def context_of(vlm: VisionLanguageModel) -> int | None:
    """Positions that the language model was made for; None where its config does not say."""
    return getattr(vlm.model.config.get_text_config(), "max_position_embeddings", None)
