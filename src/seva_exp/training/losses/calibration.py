"""P2-DPO's calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores, mean_of

if TYPE_CHECKING:
    from torch import Tensor


class Calibration(Loss):
    """-log sigma(beta (log pi(y_c|m) - log pi(y_c|m') - (log pi_ref(y_r|m) - log pi_ref(y_r|m')))),
    mean over the preference's negative pictures m', y_r the answer given to m': what the chosen
    answer gains from the better picture exceeds what the rejected one gained under the reference
    (P2-DPO, arXiv 2606.03376; there m has a crop of what is looked at beside it)."""

    name: ClassVar[str] = "calibration"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    crossed: ClassVar[bool] = True

    def __call__(self, s: Scores) -> Tensor:
        from torch.nn.functional import logsigmoid

        assert s.crossed
        gains = s.crossed.policy_gain - s.crossed.reference_gain
        return mean_of(-logsigmoid(s.beta * gains), s.view_owner, s.chosen)
