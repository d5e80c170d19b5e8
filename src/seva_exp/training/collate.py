"""Rows of data to the tensors that a model takes, padded on the right.

Shape legend: N preferences, M rejected answers, V views with a picture, R = N + M + V rows, B
examples, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from seva_exp.core.interfaces import Encoded, EncodedImage, VisionLanguageModel
from seva_exp.models.attention import attention_of

IGNORED = -100
"""The label of a token that is no part of the loss."""
OWNERS = ("rejected_owner", "view_owner")
"""What a batch holds that says which preference a row is of: nothing that a model takes."""


@dataclass(frozen=True)
class ReferenceLogps:
    """log pi_ref of a preference's answers: ``chosen``, each of ``rejected``, and ``chosen`` with
    the picture of each of ``views``."""

    chosen: float
    rejected: tuple[float, ...]
    views: tuple[float, ...] = ()


@dataclass(frozen=True)
class Preference:
    """One prompt with its chosen and K >= 1 rejected answers as token ids, how to load the clean
    picture, and how to make the pictures of those negative views that have one (they are made
    anew from the seed at each use, only where the loss looks at them). ``reference`` is there
    where it was computed before."""

    id: str
    prompt: str
    load: Callable[[], Image]
    chosen: tuple[int, ...]
    rejected: tuple[tuple[int, ...], ...]
    images: tuple[Callable[[], EncodedImage], ...] = ()
    image_views: tuple[str, ...] = ()
    """The views that ``images`` are of."""
    size: Callable[[], tuple[int, int]] | None = None
    """Width and height of the clean picture, where they can be had without decoding it."""
    reference: ReferenceLogps | None = None
    sample_id: str = ""
    picture_id: str = ""
    shown: Callable[[], EncodedImage] | None = None
    """Makes the picture that takes the clean one's place."""

    @property
    def sample(self) -> str:
        """Equal for copies of a preference."""
        return self.sample_id or self.id

    @property
    def picture(self) -> str:
        """Equal for preferences with the same clean picture."""
        return self.picture_id or self.sample

    def picture_for(self, vlm: VisionLanguageModel) -> EncodedImage:
        """The picture that all its answers are looked at with."""
        return self.shown() if self.shown else vlm.encode_image(self.load())


@dataclass(frozen=True)
class FinetuneExample:
    """One prompt with the response to learn, as token ids, and how to load the picture."""

    id: str
    prompt: str
    load: Callable[[], Image]
    response: tuple[int, ...]
    size: Callable[[], tuple[int, int]] | None = None


def reference_of(batch: Sequence[Preference]) -> dict[str, Tensor]:
    """``reference`` [R]: log pi_ref of the rows, where all of the batch know theirs."""
    if not batch or any(p.reference is None for p in batch):
        return {}
    known = [p.reference for p in batch if p.reference is not None]
    values = [r.chosen for r in known]
    values += [value for r in known for value in r.rejected]
    values += [value for r in known for value in r.views]
    return {"reference": torch.tensor(values, dtype=torch.float32)}


class PreferenceCollator:
    """Dataset rows ``{"row": i}`` to a batch of R rows: all chosen answers, then all rejected ones,
    both with the clean picture (SeVa 1.1), then each chosen answer with its views' pictures.
    Answers are the ids that were generated, never re-tokenised."""

    def __init__(self, vlm: VisionLanguageModel, preferences: Sequence[Preference]) -> None:
        self._vlm = vlm
        self._preferences = preferences

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, completion_mask [R, L], the image inputs of R pictures, and
        ``rejected_owner`` [M], ``view_owner`` [V]: which preference a row is of; ``reference`` [R]
        where it is known."""
        batch = [self._preferences[row["row"]] for row in rows]
        clean = [self._vlm.encode(p.picture_for(self._vlm), p.prompt) for p in batch]
        rejected = [(i, ids) for i, p in enumerate(batch) for ids in p.rejected]
        views = [(i, make()) for i, p in enumerate(batch) for make in p.images]
        prompts = clean + [clean[i] for i, _ in rejected]
        prompts += [self._vlm.encode(image, batch[i].prompt) for i, image in views]
        answers = [p.chosen for p in batch] + [ids for _, ids in rejected]
        answers += [batch[i].chosen for i, _ in views]
        return model_inputs(self._vlm, prompts, answers) | {
            "rejected_owner": torch.tensor([i for i, _ in rejected], dtype=torch.long),
            "view_owner": torch.tensor([i for i, _ in views], dtype=torch.long),
            **reference_of(batch),
        }


class TextCollator:
    """As ``PreferenceCollator``, of prompts without any picture; no view's."""

    def __init__(self, vlm: VisionLanguageModel, preferences: Sequence[Preference]) -> None:
        self._vlm = vlm
        self._preferences = preferences

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, completion_mask [R, L]: all chosen answers, then all rejected
        ones."""
        batch = [self._preferences[row["row"]] for row in rows]
        asked = [self._vlm.encode_text(p.prompt) for p in batch]
        prompts = asked + [asked[i] for i, p in enumerate(batch) for _ in p.rejected]
        answers = [p.chosen for p in batch] + [ids for p in batch for ids in p.rejected]
        kind = attention_of(self._vlm).answer_type
        return right_padded(prompts, answers, self._vlm.pad_id, kind)


class ExampleCollator:
    """Dataset rows ``{"row": i}`` to a batch with labels on the responses' tokens alone."""

    def __init__(self, vlm: VisionLanguageModel, examples: Sequence[FinetuneExample]) -> None:
        self._vlm = vlm
        self._examples = examples

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, labels [B, L] and the image inputs of B pictures."""
        examples = [self._examples[row["row"]] for row in rows]
        prompts = [self._vlm.encode(self._vlm.encode_image(e.load()), e.prompt) for e in examples]
        batch = model_inputs(self._vlm, prompts, [example.response for example in examples])
        mask = batch.pop("completion_mask")
        return batch | {"labels": batch["input_ids"].masked_fill(mask == 0, IGNORED)}


def model_inputs(
    vlm: VisionLanguageModel, prompts: Sequence[Encoded], answers: Sequence[tuple[int, ...]]
) -> dict[str, torch.Tensor]:
    """One row per prompt and answer, with the picture of each prompt, on the CPU."""
    pixels = vlm.image_inputs([prompt.image for prompt in prompts], torch.device("cpu"))
    family = attention_of(vlm)
    return right_padded(prompts, answers, vlm.pad_id, family.answer_type) | pixels


def right_padded(
    prompts: Sequence[Encoded], answers: Sequence[tuple[int, ...]], pad: int, answer_type: int = 0
) -> dict[str, torch.Tensor]:
    """Prompt then answer, padded on the right; completion_mask is 1 on the answer's tokens;
    ``answer_type`` is their token_type_id."""
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
        kind = answer_type if key == "token_type_ids" else 0
        out[key] = table([p.types[key] + (kind,) * len(a) for p, a in pairs], 0)
    return out
