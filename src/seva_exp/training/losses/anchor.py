"""mDPO's anchor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores

if TYPE_CHECKING:
    from torch import Tensor


class Anchor(Loss):
    """-log sigma(s(chosen)): keeps the chosen answer likely (mDPO, arXiv 2406.11839)."""

    name: ClassVar[str] = "anchor"

    def __call__(self, s: Scores) -> Tensor:
        from torch.nn.functional import logsigmoid

        return -logsigmoid(s.chosen)
