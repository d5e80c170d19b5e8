"""Ambiguity: whether the model's answers under weak views agree. No heavy import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from seva_exp.augment import AnySource
from seva_exp.core.spec import Spec
from seva_exp.scores.agreement import Agreement

WEAK = "weak_"
"""How the answers of weak views are called, the view's name behind it."""
SCORE = "ambiguity"
"""The name of the score that says how much they agree."""


class Ambiguity(Spec):
    """The question asked again under views that leave its answer as it is. A sample's agreement is
    the mean of the score ``agreement`` over K answers, the clean one and one of each view: the mean
    likeness of two of them (self-consistency, arXiv:2203.11171). It is a column of the pairs, the
    filter ``ambiguous`` removes by it, ``dpo.weights`` of kind ``agreement`` weigh by it."""

    views: dict[str, AnySource] = Field(min_length=1)
    """Weak views by name, or further candidates; K is their number and one."""
    measure: Literal["auto", "equal", "f1"] = "auto"
    """As of the score ``agreement``: are two answers equal, or F1 of their words."""
    short: int = Field(5, ge=1)
    """Words of the longest answer that ``auto`` compares as a whole."""

    @field_validator("views")
    @classmethod
    def _asks_the_same(cls, views: dict[str, AnySource]) -> dict[str, AnySource]:
        for name, view in views.items():
            if not view.asks:
                raise ValueError(f"{name}: kind={view.kind} asks no model. Take a view")
            if view.space == "prompt":
                raise ValueError(f"{name}: kind={view.kind} asks another question. Take a view")
        return views

    @property
    def score(self) -> Agreement:
        """The score of the K answers."""
        return Agreement(measure=self.measure, short=self.short)
