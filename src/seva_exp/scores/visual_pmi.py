"""How much likelier the picture makes an answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seva_exp.scores.logprob import LogprobScore, Means, Ways


class VisualPmi(LogprobScore):
    """(1/T) log p(y | v, x) - (1/T) log p(y | v', x), by the model as the round begins: the
    pointwise mutual information of answer and picture per token, as M3ID (arXiv:2403.14003) and
    IRIS (arXiv:2602.01769, its text-only term) have it in other forms."""

    kind: Literal["visual_pmi"] = "visual_pmi"
    view: str | None = Field(
        None, min_length=1, description="v': a negative view of aug by name; null: no picture"
    )

    @property
    def looks_at(self) -> str | None:
        return self.view

    @property
    def ways(self) -> Ways:
        return (True, "clean"), (True, self._other)

    @property
    def _other(self) -> str:
        return "view" if self.view else "none"

    def value(self, means: Means) -> float:
        return means[True, "clean"] - means[True, self._other]
