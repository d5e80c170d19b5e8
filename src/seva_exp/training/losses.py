"""The losses that TRL does not have, from the log-probabilities of whole answers.

Shape legend: N preferences, M rejected answers (all preferences'), V views with a picture (all
preferences'). ``owner`` names the preference (0..N-1) of each rejected answer or view. Scores are
s = beta (log pi(y|m,x) - log pi_ref(y|m,x)) with the clean picture m, unless said otherwise.
Each loss is [N]: one value a preference, to be averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Scores:
    """The inputs of the losses. ``logprob`` [N] is log pi(chosen), summed over its tokens, and
    ``chosen`` [N] its score; ``rejected`` [M]; ``views`` [V]: the chosen answer's score with the
    negative view's picture."""

    logprob: Tensor
    chosen: Tensor
    rejected: Tensor
    rejected_owner: Tensor
    views: Tensor
    view_owner: Tensor


def chosen_nll(logprob: Tensor) -> Tensor:
    """-log p(chosen), summed over the tokens: STIC (arXiv 2405.19716) eq. 4.1, there with the
    weight alpha = 1/1024. TRL's ``sft`` is the mean over tokens."""
    return -logprob


def softmax(chosen: Tensor, rejected: Tensor, owner: Tensor) -> Tensor:
    """-log (e^s_c / (e^s_c + sum_k e^s_k)) = -log sigma(-log sum_k e^(s_k - s_c)): InfoNCE with one
    positive and K negatives (Plackett-Luce, first place). Equal to DPO for K = 1."""
    margin = rejected - chosen[owner]
    # The largest exponent is taken out; 0 is the exponent of the chosen answer itself.
    peak = torch.zeros_like(chosen).scatter_reduce(0, owner, margin.detach(), "amax")
    rest = torch.zeros_like(chosen).index_add(0, owner, (margin - peak[owner]).exp())
    return peak + ((-peak).exp() + rest).log()


def image(chosen: Tensor, views: Tensor, owner: Tensor) -> Tensor:
    """-log sigma(s(m) - s(m')), mean over the preference's negative pictures m': conditional
    preference optimization of mDPO (arXiv 2406.11839), alone it is Image-DPO's (2501.00569). 0
    where no view of a preference has a picture of its own."""
    each = -logsigmoid(chosen[owner] - views)
    count = torch.zeros_like(chosen).index_add(0, owner, torch.ones_like(each))
    return torch.zeros_like(chosen).index_add(0, owner, each) / count.clamp(min=1)


def anchor(chosen: Tensor) -> Tensor:
    """-log sigma(s(chosen)): keeps the chosen answer likely (mDPO, arXiv 2406.11839)."""
    return -logsigmoid(chosen)


OURS: dict[str, Callable[[Scores], Tensor]] = {
    "softmax": lambda s: softmax(s.chosen, s.rejected, s.rejected_owner),
    "chosen_nll": lambda s: chosen_nll(s.logprob),
    "image": lambda s: image(s.chosen, s.views, s.view_owner),
    "anchor": lambda s: anchor(s.chosen),
}
"""Each loss by its name in ``DpoTraining.loss``."""
