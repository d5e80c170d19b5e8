"""DA-DPO's factor: an easy pair is held closer to the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from seva_exp.training.weight import PairFactors

if TYPE_CHECKING:
    from torch import Tensor


class DaDpo(PairFactors):
    """alpha (1 + |gap|) on beta, gap = how much likelier a token of the chosen answer is under the
    reference than one of the rejected one, in nats (DA-DPO, arXiv 2601.00623, the generative half
    of its difficulty): an easy pair has a large beta, and is learnt with little movement."""

    kind: Literal["da_dpo"] = "da_dpo"
    alpha: float = Field(1.0, gt=0)
    """Factor of a pair without a gap."""

    def __call__(self, gap: Tensor) -> Tensor:
        return self.alpha * (1 + gap.abs())
