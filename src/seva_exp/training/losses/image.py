"""Conditional preference: one answer, two pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores, mean_of

if TYPE_CHECKING:
    from torch import Tensor


class Image(Loss):
    """-log sigma(s(m) - s(m')), mean over the preference's negative pictures m': conditional
    preference optimization of mDPO (arXiv 2406.11839), alone it is Image-DPO's (2501.00569). 0
    where no view of a preference has a picture of its own."""

    name: ClassVar[str] = "image"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})

    def __call__(self, s: Scores) -> Tensor:
        from torch.nn.functional import logsigmoid

        each = -logsigmoid(s.chosen[s.view_owner] - s.views)
        return mean_of(each, s.view_owner, s.chosen)
