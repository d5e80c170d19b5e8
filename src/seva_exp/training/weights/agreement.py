"""Agreement as a weight: what the model is not sure of counts less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from seva_exp.training.weight import LossWeights

if TYPE_CHECKING:
    from torch import Tensor


class AgreementWeights(LossWeights):
    """A preference's loss times the agreement of the sample's answers under weak views
    (``ambiguity``): 1 where all are alike, 0 where no two are. Our own; the agreement is
    self-consistency's (arXiv:2203.11171)."""

    kind: Literal["agreement"] = "agreement"

    def __call__(self, agreement: Tensor) -> Tensor:
        return agreement
