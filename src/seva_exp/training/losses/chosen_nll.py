"""The chosen answer's negative log-likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores

if TYPE_CHECKING:
    from torch import Tensor


class ChosenNll(Loss):
    """-log p(chosen), summed over the tokens: STIC (arXiv 2405.19716) eq. 4.1, there with the
    weight alpha = 1/1024. TRL's ``sft`` is the mean over tokens."""

    name: ClassVar[str] = "chosen_nll"

    def __call__(self, s: Scores) -> Tensor:
        return -s.logprob
