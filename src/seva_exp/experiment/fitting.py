"""What an experiment's ambiguity and its choice of negatives ask of its other parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from seva_exp.augment import AnySource
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


def check_hardest(
    method: AnyMethod, sources: Mapping[str, AnySource], generation: AnyGeneration
) -> None:
    """The hardest of several answers is told by the model that is loaded here. Raises
    ValueError."""
    if method.negatives != "hardest":
        return
    for name, source in sources.items():
        if not source.asks:
            raise ValueError(
                f"aug.{name}: kind={source.kind} asks no model, and method.negatives=hardest "
                "chooses among the answers of views. Leave it out, or take method.negatives=all."
            )
    if len(sources) < 2:
        raise ValueError(
            f"method.negatives=hardest: there is one view (aug: {', '.join(sources)}). Add another "
            "one, or another strength of it (+aug=noise_steps)."
        )
    if not generation.in_process:
        raise ValueError(
            f"method.negatives=hardest asks the model that is loaded here how likely an answer is, "
            f"and generation={generation.kind} has another answer. Take generation=hf."
        )
