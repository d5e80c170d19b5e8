"""What an experiment's ambiguity asks of its other parts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from seva_exp.decoding import AnyGeneration
from seva_exp.methods import AnyMethod, BestOfKMethod
from seva_exp.preferences import AmbiguousFilter, AnyFilter
from seva_exp.preferences.ambiguity import SCORE, WEAK, Ambiguity
from seva_exp.training import DpoTraining


def check_agreement(
    ambiguity: Ambiguity | None,
    filters: Sequence[AnyFilter],
    dpo: DpoTraining,
    generation: AnyGeneration,
) -> None:
    """Where an agreement is looked at, there is one, and further candidates differ. Raises
    ValueError."""
    if ambiguity is None:
        looks = [
            f"filters.{number}: kind={rule.kind}"
            for number, rule in enumerate(filters)
            if isinstance(rule, AmbiguousFilter)
        ]
        if dpo.weights and dpo.agreed:
            looks.append(f"dpo.weights: kind={dpo.weights.kind}")
        if looks:
            raise ValueError(
                f"{looks[0]} looks at the agreement of answers under weak views, and ambiguity is "
                "not set. Add ambiguity=weak, or leave it out."
            )
        return
    for name, view in ambiguity.views.items():
        if view.careful and not generation.changed(view.decoding()).seeded:
            raise ValueError(
                f"ambiguity.views.{name}: kind={view.kind} samples another answer; at temperature "
                f"0 there is one. Set ambiguity.views.{name}.temperature above 0."
            )


def check_names(ambiguity: Ambiguity | None, views: Collection[str], method: AnyMethod) -> None:
    """No two of a run's answers or scores have one name. Raises ValueError."""
    for name in ambiguity.views if ambiguity else ():
        if f"{WEAK}{name}" in views:
            raise ValueError(
                f"ambiguity.views.{name}: its answers are called {WEAK}{name}, as aug.{WEAK}{name} "
                "is. Give one of them another name."
            )
    if ambiguity and isinstance(method, BestOfKMethod) and SCORE in method.scores:
        raise ValueError(
            f"method.scores.{SCORE}: the score of ambiguity is called so; take another name."
        )
