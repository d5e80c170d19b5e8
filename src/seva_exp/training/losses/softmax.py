"""One positive against all negatives at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores

if TYPE_CHECKING:
    from torch import Tensor


class Softmax(Loss):
    """-log (e^s_c / (e^s_c + sum_k e^s_k)) = -log sigma(-log sum_k e^(s_k - s_c)): InfoNCE with one
    positive and K negatives (Plackett-Luce, first place). Equal to DPO for K = 1."""

    name: ClassVar[str] = "softmax"

    def __call__(self, s: Scores) -> Tensor:
        import torch

        owner, zero = s.rejected_owner, torch.zeros_like(s.chosen)
        margin = s.rejected - s.chosen[owner]
        # The largest exponent is taken out; 0 is the exponent of the chosen answer itself.
        peak = zero.scatter_reduce(0, owner, margin.detach(), "amax")
        rest = zero.index_add(0, owner, (margin - peak[owner]).exp())
        return peak + ((-peak).exp() + rest).log()
