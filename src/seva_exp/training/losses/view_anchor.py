"""The anchor of the other picture's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores, mean_of

if TYPE_CHECKING:
    from torch import Tensor


class ViewAnchor(Loss):
    """-log sigma(s(y_r,m')), mean over the negative pictures m': keeps the answer y_r likely on the
    picture that it was given to (SymMPO, arXiv 2506.11712)."""

    name: ClassVar[str] = "view_anchor"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    crossed: ClassVar[bool] = True

    def __call__(self, s: Scores) -> Tensor:
        from torch.nn.functional import logsigmoid

        assert s.crossed
        return mean_of(-logsigmoid(s.crossed.own), s.view_owner, s.chosen)
