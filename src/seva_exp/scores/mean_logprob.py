"""How likely the model finds its own answer."""

from __future__ import annotations

from typing import Literal

from seva_exp.scores.logprob import LogprobScore, Means, Ways


class MeanLogprob(LogprobScore):
    """(1/T) sum_t log p(y_t | v, x, y_<t), of an answer of T tokens, by the model as the round
    begins. CSR (arXiv:2405.14622) takes the probability itself, sentence by sentence."""

    kind: Literal["mean_logprob"] = "mean_logprob"

    @property
    def ways(self) -> Ways:
        return ((True, "clean"),)

    def value(self, means: Means) -> float:
        return means[True, "clean"]
