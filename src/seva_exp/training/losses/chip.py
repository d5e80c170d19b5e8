"""CHiP's hierarchy: answers, pictures and tokens in one margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores, mean_of

if TYPE_CHECKING:
    from torch import Tensor


KEPT = 0.1
"""Weight of the tokens' divergence, CHiP's (there tok_beta)."""


class Chip(Loss):
    """-log sigma(beta (D(y_c,m) - D(y_r,m) + D(y_c,m) - D(y_c,m') - k (KL(y_r) - sg KL(y_c)))),
    mean over the rejected answers; D = log pi/pi_ref, KL(y) = sum_t KL(pi_ref || pi) behind y's
    first t tokens, k = 0.1, sg: no gradient (CHiP, arXiv 2501.16629). m' is the picture of the view
    that gave y_r; where that changes no picture, D(y_c,m) - D(y_c,m') is left out."""

    name: ClassVar[str] = "chip"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    diverges: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def __call__(self, s: Scores) -> Tensor:
        import torch
        from torch.nn.functional import logsigmoid

        assert s.divergence
        assert s.view_rejected is not None
        owner = s.rejected_owner
        seen = s.chosen[s.view_owner] - s.views
        seen = torch.zeros_like(s.rejected).index_add(0, s.view_rejected, seen)
        kl = s.divergence.rejected - s.divergence.chosen.detach()[owner]
        margin = s.chosen[owner] - s.rejected + seen - KEPT * s.beta * kl
        return mean_of(-logsigmoid(margin), owner, s.chosen)
