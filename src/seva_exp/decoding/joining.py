"""Rows that come in together, and which of a step's rows belong to one answer.

Shape legend: R rows, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seva_exp.core.interfaces import VisionLanguageModel
from seva_exp.decoding.kv_attention import Part
from seva_exp.decoding.rows import PrefixGroup, Row, Seen
from seva_exp.models.branches import Prompt
from seva_exp.models.transfer import put
from seva_exp.models.vision import features_of, joined


@dataclass(frozen=True)
class Joining:
    """Rows that come in behind one prefix, which is run now if it is ``new``."""

    group: PrefixGroup
    new: bool
    rows: list[Row]

    @property
    def part(self) -> Part:
        """Of a prefill."""
        group = self.group
        assert group.slot is not None
        ends = tuple(len(row.end) for row in self.rows)
        return Part(group.slot, self.new, Prompt(len(group.ids), ends, group.blocks))


class Sides(NamedTuple):
    """Of contrastive decoding: ``lead`` [A], the row of each answer; ``beside`` [A], the row that
    its logits are contrasted with; ``answer`` [R], the answer of each row."""

    lead: Tensor
    beside: Tensor
    answer: Tensor


def sides_of(rows: Sequence[Row], device: torch.device) -> Sides:
    """Of rows by their slots, each of which leads or is beside one of them."""
    slots = {row: slot for slot, row in enumerate(rows)}
    pairs = [(slots[row], slots[row.beside[0]]) for row in rows if row.beside]
    answers = {slot: number for number, pair in enumerate(pairs) for slot in pair}
    lead, beside = zip(*pairs, strict=True)
    answer = [answers[slot] for slot in range(len(rows))]
    return Sides(*(put(torch.tensor(one), device) for one in (lead, beside, answer)))


def features_for(vlm: VisionLanguageModel, pictures: Sequence[Seen]) -> dict[str, Any] | None:
    """What stands for the placeholders, picture by picture; each is computed once."""
    if not pictures:
        return None
    missing = [p for p in dict.fromkeys(pictures) if p.features is None]
    images = [picture.image for picture in missing if picture.image is not None]
    if missing:
        for picture, features in zip(missing, features_of(vlm, images), strict=True):
            picture.features = features
    return {"image": joined([picture.features for picture in pictures])}
