"""The packed sequence: it holds every prompt once, its answers behind it as branches.

[prompt_1 | answer | answer ... | prompt_2 | answer ...], without padding. An answer sees its own
prompt and itself; its positions go on from the prompt's end. So the prompt with its picture is
computed once, however many answers it has, and ragged lengths cost nothing.

Shape legend: R rows (as in collate.py), T tokens of the packed sequence, S scored tokens (all
answers').
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seva_exp.core.interfaces import Encoded, VisionLanguageModel
from seva_exp.models.attention import attention_of, positions_of
from seva_exp.models.branches import Prompt
from seva_exp.training.collate import (
    Preference,
    agreement_of,
    owners_of,
    reference_of,
    rows_of,
    weights_of,
)
from seva_exp.training.vision import FeatureCache, VisionInput


@dataclass
class PackedSequence:
    """The model's inputs: ``ids`` [1, T], ``positions`` [1, T] or [3, 1, T]; ``scored`` [S]: the
    places that predict ``labels`` [1, S], row by row in the order of the R rows."""

    prompts: tuple[Prompt, ...]
    ids: Tensor
    positions: Tensor
    scored: Tensor
    labels: Tensor
    pictures: tuple[VisionInput, ...]
    window_over_blocks: bool = False
    """Whether a sliding window cuts blocks too (Gemma3) or not (PaliGemma)."""
    masks: dict[Any, list[tuple[Tensor | None, Tensor]]] = field(default_factory=dict)
    """Made by the first layer that needs them, per window."""

    def __post_init__(self) -> None:
        self.places = self.scored.unique()  # a prompt's last token predicts all its answers' first

    def to(self, device: Any, **options: Any) -> PackedSequence:
        """The row with its tensors on ``device``."""
        return self._with(lambda tensor: tensor.to(device, **options))

    def pin_memory(self) -> PackedSequence:
        """The row with its tensors in pinned memory (called by torch's DataLoader)."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> PackedSequence:
        made = copy(self)
        for name in ("ids", "positions", "scored", "labels", "places"):
            setattr(made, name, change(getattr(self, name)))
        return made


class PackedCollator:
    """Dataset rows ``{"row": i}`` to a batch whose R rows are one packed sequence."""

    def __init__(
        self, vlm: VisionLanguageModel, preferences: Sequence[Preference], vision: FeatureCache
    ) -> None:
        self._vlm = vlm
        self._preferences = preferences
        self._vision = vision
        self._family = attention_of(vlm)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """``shared``; for TRL's loss and metrics the answers alone: input_ids, completion_mask
        [R, A] (one token before the answer), attention_mask [R, 1] (lengths of the R rows, which
        are only counted); and what ``owners_of`` gives."""
        batch = [self._preferences[row["row"]] for row in rows]
        made = rows_of(batch)
        number = {shown: n for n, shown in enumerate(dict.fromkeys((i, k) for i, k, _ in made))}
        prompts = [self._prompt(batch[i], k) for i, k in number]
        owner, answers = [number[i, k] for i, k, _ in made], [answer for _, _, answer in made]
        out = self._answers(prompts, owner, answers) | owners_of(batch) | reference_of(batch)
        out |= weights_of(batch) | agreement_of(batch)
        return out | {"shared": self._pack(prompts, owner, answers)}

    def _prompt(
        self, preference: Preference, view: int | None = None
    ) -> tuple[Encoded, VisionInput]:
        picture = self._vision.picture(preference, view)
        return preference.asked(self._vlm, picture.image), picture

    def _answers(
        self,
        prompts: Sequence[tuple[Encoded, VisionInput]],
        owner: Sequence[int],
        answers: Sequence[tuple[int, ...]],
    ) -> dict[str, Tensor]:
        width = 1 + max(map(len, answers))

        def table(rows: list[tuple[int, ...]], fill: int) -> Tensor:
            return torch.tensor([row + (fill,) * (width - len(row)) for row in rows])

        lengths = [len(prompts[i][0].ids) + len(a) for i, a in zip(owner, answers, strict=True)]
        before = [prompts[i][0].ids[-1:] for i in owner]
        return {
            "input_ids": table(
                [b + a for b, a in zip(before, answers, strict=True)], self._vlm.pad_id
            ),
            "completion_mask": table([(0,) + (1,) * len(a) for a in answers], 0),
            "attention_mask": torch.tensor(lengths)[:, None],
        }

    def _pack(
        self,
        prompts: Sequence[tuple[Encoded, VisionInput]],
        owner: Sequence[int],
        answers: Sequence[tuple[int, ...]],
    ) -> PackedSequence:
        """Each prompt, then its answers in the order of the rows."""
        ids: list[int] = []
        positions: list[Tensor] = []
        laid: list[Prompt] = []
        scored: list[list[int]] = [[] for _ in answers]
        for number, (encoded, _) in enumerate(prompts):
            at = positions_of(self._vlm, encoded)
            ids += encoded.ids
            positions.append(at)
            last, after = len(ids) - 1, int(at.max()) + 1
            mine = [row for row, of in enumerate(owner) if of == number]
            for row in mine:
                fed = answers[row][:-1]
                scored[row] = [last, *range(len(ids), len(ids) + len(fed))]
                ids += fed
                positions.append(after + torch.arange(len(fed)).expand(len(at), -1))
            laid.append(
                Prompt(
                    len(encoded.ids),
                    tuple(len(answers[row]) - 1 for row in mine),
                    self._family.blocks(encoded),
                )
            )
        joined = torch.cat(positions, dim=1)
        return PackedSequence(
            prompts=tuple(laid),
            ids=torch.tensor([ids]),
            positions=joined if len(joined) == 1 else joined[:, None],
            scored=torch.tensor([at for row in scored for at in row]),
            labels=torch.tensor([[token for answer in answers for token in answer]]),
            pictures=tuple(picture for _, picture in prompts),
            window_over_blocks=self._family.window_over_blocks,
        )
