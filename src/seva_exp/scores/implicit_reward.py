"""IRIS: the reward that DPO has made the policy itself into."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.scores.logprob import LogprobScore, Means, Ways


class ImplicitReward(LogprobScore):
    """IRIS (arXiv:2602.01769): S = r_v - gamma max(0, r_t - r_v), r_v = beta (log pi - log pi_0)
    (y | v, x) per token, r_t the same without the picture. pi is the model as the round begins,
    pi_0 the unaligned one: in round 1 they are one, and every S is 0."""

    needs_policy: ClassVar[bool] = True
    kind: Literal["implicit_reward"] = "implicit_reward"
    since: int = Field(2, ge=1, description="the first round in which it is asked; not 1")
    beta: float = Field(0.1, gt=0, description="DPO's; IRIS: 0.1")
    gamma: float = Field(
        0.7, ge=0, description="weight of what speaks for an answer without the picture; IRIS: 0.7"
    )

    @property
    def ways(self) -> Ways:
        return (True, "clean"), (False, "clean"), (True, "none"), (False, "none")

    def value(self, means: Means) -> float:
        with_picture = self.beta * (means[True, "clean"] - means[False, "clean"])
        without = self.beta * (means[True, "none"] - means[False, "none"])
        return with_picture - self.gamma * max(0.0, without - with_picture)
