"""Equal margins on both pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores, mean_of

if TYPE_CHECKING:
    from torch import Tensor


class MarginGap(Loss):
    """((D(y_c,m) - D(y_r,m)) - (D(y_r,m') - D(y_c,m')))^2, D = log pi/pi_ref (without beta), mean
    over the negative pictures m': SymMPO's margin consistency (arXiv 2506.11712), there with the
    weight 1e-4."""

    name: ClassVar[str] = "margin_gap"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    crossed: ClassVar[bool] = True

    def __call__(self, s: Scores) -> Tensor:
        assert s.crossed
        assert s.view_rejected is not None
        here = s.chosen[s.view_owner] - s.rejected[s.view_rejected]
        gap = (here - (s.crossed.own - s.views)) / s.beta
        return mean_of(gap.square(), s.view_owner, s.chosen)
