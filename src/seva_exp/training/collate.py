"""Pairs to the batch that TRL's DPOTrainer takes: clean image, prompt, chosen and rejected ids.

Shape legend: B pairs, R = 2 B rows (all chosen, then all rejected), L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from seva_exp.interfaces import Encoded, VisionLanguageModel

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Preference:
    """One row of training: ids as generated, and how to load the clean image."""

    id: str
    prompt: str
    load: Callable[[], Image]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


class PreferenceCollator:
    """Turns dataset rows ``{"row": i}`` into a batch. The image is the clean one on both sides
    (SeVa 1.1); prompt and answer ids are those of generation, never re-tokenised."""

    def __init__(self, vlm: VisionLanguageModel, preferences: Sequence[Preference]) -> None:
        self._vlm = vlm
        self._preferences = preferences

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, completion_mask [R, L] and the image inputs of R images."""
        chosen = [self._preferences[row["row"]] for row in rows]
        prompts = [self._encode(preference) for preference in chosen]
        answers = [p.chosen for p in chosen] + [p.rejected for p in chosen]
        batch = right_padded(prompts * 2, answers, self._vlm.pad_id)
        pixels = self._vlm.image_inputs([prompt.image for prompt in prompts] * 2)
        return batch | {key: value.cpu() for key, value in pixels.items()}

    def _encode(self, preference: Preference) -> Encoded:
        image = self._vlm.encode_image(preference.load())
        return self._vlm.encode(image, preference.prompt)


def right_padded(
    prompts: Sequence[Encoded], answers: Sequence[tuple[int, ...]], pad: int
) -> dict[str, torch.Tensor]:
    """Prompt then answer, padded on the right; completion_mask is 1 on the answer's tokens."""
    lengths = [len(p.ids) + len(a) for p, a in zip(prompts, answers, strict=True)]
    width = max(lengths)

    def table(rows: list[tuple[int, ...]], fill: int) -> torch.Tensor:
        return torch.tensor([row + (fill,) * (width - len(row)) for row in rows])

    pairs = list(zip(prompts, answers, strict=True))
    out = {
        "input_ids": table([p.ids + a for p, a in pairs], pad),
        "attention_mask": table([(1,) * length for length in lengths], 0),
        "completion_mask": table([(0,) * len(p.ids) + (1,) * len(a) for p, a in pairs], 0),
    }
    for key in prompts[0].types:
        out[key] = table([p.types[key] for p in prompts], 0)
    return out
