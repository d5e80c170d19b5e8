"""Rows of data to the tensors that a model takes, padded on the right.

Shape legend: N preferences, M rejected answers, V views with a picture, W rejected answers with the
pictures that they were given to (V of them, or none), R = N + M + V + W rows, B examples, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from seva_exp.core.interfaces import Encoded, EncodedImage, VisionLanguageModel
from seva_exp.models.attention import attention_of
from seva_exp.models.context import behind

IGNORED = -100
"""The label of a token that is no part of the loss."""
OWNERS = ("rejected_owner", "view_owner", "view_rejected", "strength", "crossed")
"""What a batch holds that says what a row is of: nothing that a model takes."""


@dataclass(frozen=True)
class ReferenceLogps:
    """log pi_ref of a preference's answers: ``chosen``, each of ``rejected``, ``chosen`` with the
    picture of each of ``views``; ``crossed``: with that picture the answer that the view gave."""

    chosen: float
    rejected: tuple[float, ...]
    views: tuple[float, ...] = ()
    crossed: tuple[float, ...] = ()


@dataclass(frozen=True)
class AnswerWeights:
    """The weight of each token of a preference's answers, and log pi_ref summed with them."""

    chosen: tuple[float, ...]
    rejected: tuple[tuple[float, ...], ...]
    reference: ReferenceLogps


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
    image_rejected: tuple[int, ...] = ()
    """Which of ``rejected`` each of these views gave."""
    strengths: tuple[float, ...] = ()
    """How much each of these views changes a picture; empty: not known."""
    crossed: bool = False
    """Whether the rejected answers are scored with ``images`` too."""
    size: Callable[[], tuple[int, int]] | None = None
    """Width and height of the clean picture, where they can be had without decoding it."""
    reference: ReferenceLogps | None = None
    weights: AnswerWeights | None = None
    agreement: float | None = None
    """Of the answers to its sample under weak views, where they were asked."""
    sample_id: str = ""
    picture_id: str = ""
    shown: Callable[[], EncodedImage] | None = None
    """Makes the picture that takes the clean one's place."""
    context: tuple[int, ...] = ()
    """Ids behind the prompt that all its answers go on from: no loss is taken of them."""

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

    def asked(self, vlm: VisionLanguageModel, image: EncodedImage) -> Encoded:
        """All that stands before its answers: the prompt with a picture, then the context."""
        return behind(vlm, vlm.encode(image, self.prompt), self.context)


@dataclass(frozen=True)
class FinetuneExample:
    """One prompt with the response to learn, as token ids, and how to load the picture."""

    id: str
    prompt: str
    load: Callable[[], Image]
    response: tuple[int, ...]
    size: Callable[[], tuple[int, int]] | None = None


Row = tuple[int, int | None, tuple[int, ...]]
"""A preference's number, that of its view whose picture is shown (None: the clean one), an
answer."""


def rows_of(batch: Sequence[Preference]) -> list[Row]:
    """The R rows: all chosen answers, then all rejected ones, both with the clean picture (SeVa
    1.1), then each chosen answer with its views' pictures, then what these views said with them."""
    rows: list[Row] = [(i, None, p.chosen) for i, p in enumerate(batch)]
    rows += [(i, None, ids) for i, p in enumerate(batch) for ids in p.rejected]
    rows += [(i, k, p.chosen) for i, p in enumerate(batch) for k in range(len(p.images))]
    given = ((i, p, k, j) for i, p in enumerate(batch) for k, j in enumerate(p.image_rejected))
    return rows + [(i, k, p.rejected[j]) for i, p, k, j in given if p.crossed]


def owners_of(batch: Sequence[Preference]) -> dict[str, Tensor]:
    """``rejected_owner`` [M] and ``view_owner`` [V]: whose a row is; ``view_rejected`` [V]: which
    of the M answers a view gave; ``strength`` [V], 0 where it is not known; ``crossed`` [W]: of
    which of the V views a row is."""
    rejected = [i for i, p in enumerate(batch) for _ in p.rejected]
    views = [(i, k, p) for i, p in enumerate(batch) for k in range(len(p.images))]
    crossed = [number for number, (_, _, p) in enumerate(views) if p.crossed]
    given = [rejected.index(i) + p.image_rejected[k] for i, k, p in views]
    strengths = [p.strengths[k] if p.strengths else 0.0 for _, k, p in views]
    whole = {
        "rejected_owner": rejected,
        "view_owner": [i for i, _, _ in views],
        "view_rejected": given,
        "crossed": crossed,
    }
    found = {name: torch.tensor(value, dtype=torch.long) for name, value in whole.items()}
    return found | {"strength": torch.tensor(strengths, dtype=torch.float32)}


def reference_of(batch: Sequence[Preference]) -> dict[str, Tensor]:
    """``reference`` [R]: log pi_ref of the rows, where all of the batch know theirs."""
    if not batch or any(p.reference is None for p in batch):
        return {}
    known = [p.reference for p in batch if p.reference is not None]
    return {"reference": torch.tensor(in_rows(known), dtype=torch.float32)}


def weights_of(batch: Sequence[Preference]) -> dict[str, Tensor]:
    """``token_weights`` [S] of all rows' answers, row by row, and ``weighted_reference`` [R], where
    the batch has weights."""
    known = [p.weights for p in batch if p.weights is not None]
    if not known:
        return {}
    answers = [w.chosen for w in known] + [one for w in known for one in w.rejected]
    flat = [value for number in whose(owners_of(batch)) for value in answers[number]]
    return {
        "token_weights": torch.tensor(flat, dtype=torch.float32),
        "weighted_reference": torch.tensor(in_rows([_in_training(p) for p in batch])),
    }


def agreement_of(batch: Sequence[Preference]) -> dict[str, Tensor]:
    """``agreement`` [N], where the batch's samples were asked under weak views."""
    known = [p.agreement for p in batch if p.agreement is not None]
    return {"agreement": torch.tensor(known, dtype=torch.float32)} if known else {}


def _in_training(preference: Preference) -> ReferenceLogps:
    """Its weighted sums of the rows that it has: the stage ``weights`` may have looked at more."""
    assert preference.weights, "all of a run's pairs have weights, or none has"
    sums = preference.weights.reference
    sums = sums if preference.images else replace(sums, views=())
    return sums if preference.crossed else replace(sums, crossed=())


def whose(owners: dict[str, Tensor]) -> list[int]:
    """Which of the N + M answers each of the R rows is of."""
    rejected = owners["rejected_owner"]
    preferences = int(rejected.max()) + 1
    crossed = preferences + owners["view_rejected"][owners["crossed"]]
    rows = [torch.arange(preferences + len(rejected)), owners["view_owner"], crossed]
    return [number for some in rows for number in some.tolist()]


def in_rows(known: Sequence[ReferenceLogps]) -> list[float]:
    """A number for each of the R rows."""
    values = [r.chosen for r in known]
    for name in ("rejected", "views", "crossed"):
        values += [value for r in known for value in getattr(r, name)]
    return values


class PreferenceCollator:
    """Dataset rows ``{"row": i}`` to a batch of R rows (``rows_of``). Answers are the ids that were
    generated, never re-tokenised."""

    def __init__(self, vlm: VisionLanguageModel, preferences: Sequence[Preference]) -> None:
        self._vlm = vlm
        self._preferences = preferences

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, completion_mask [R, L], the image inputs of R pictures, what
        ``owners_of`` gives, and ``reference`` [R] and ``agreement`` [N] where they are known."""
        batch = [self._preferences[row["row"]] for row in rows]
        made = rows_of(batch)
        shown = dict.fromkeys((i, k) for i, k, _ in made)
        prompts = {(i, k): self._prompt(batch[i], k) for i, k in shown}
        inputs = model_inputs(
            self._vlm, [prompts[i, k] for i, k, _ in made], [answer for _, _, answer in made]
        )
        known = reference_of(batch) | weights_of(batch) | agreement_of(batch)
        return inputs | owners_of(batch) | known

    def _prompt(self, preference: Preference, view: int | None) -> Encoded:
        image = preference.picture_for(self._vlm) if view is None else preference.images[view]()
        return preference.asked(self._vlm, image)


class TextCollator:
    """As ``PreferenceCollator``, of prompts without any picture; no view's."""

    def __init__(self, vlm: VisionLanguageModel, preferences: Sequence[Preference]) -> None:
        self._vlm = vlm
        self._preferences = preferences

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, completion_mask [R, L]: all chosen answers, then all rejected
        ones."""
        batch = [self._preferences[row["row"]] for row in rows]
        asked = [behind(self._vlm, self._vlm.encode_text(p.prompt), p.context) for p in batch]
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
