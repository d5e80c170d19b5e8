"""Two pictures, each of which prefers its own answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores, mean_of

if TYPE_CHECKING:
    from torch import Tensor


class Symmetric(Loss):
    """-log sigma(s(y_c,m) - s(y_r,m)) - log sigma(s(y_r,m') - s(y_c,m')), mean over the negative
    pictures m', y_r the answer given to m': SymMPO's symmetric preference (arXiv 2506.11712). The
    other picture is to be one of its own, to which y_r is a right answer."""

    name: ClassVar[str] = "symmetric"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    crossed: ClassVar[bool] = True

    def __call__(self, s: Scores) -> Tensor:
        from torch.nn.functional import logsigmoid

        assert s.crossed
        assert s.view_rejected is not None
        here = s.chosen[s.view_owner] - s.rejected[s.view_rejected]
        there = s.crossed.own - s.views
        return mean_of(-logsigmoid(here) - logsigmoid(there), s.view_owner, s.chosen)
