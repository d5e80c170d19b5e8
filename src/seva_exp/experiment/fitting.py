"""What an experiment's ambiguity and its choice of negatives ask of its other parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from seva_exp.augment import AnySource
from seva_exp.benchmarks import AnyBenchmark
from seva_exp.core.errors import suggest
from seva_exp.decoding import AnyGeneration
from seva_exp.grounding.spec import Explain
from seva_exp.methods import (
    AnyMethod,
    BestOfKMethod,
    Curriculum,
    SentinelMethod,
    SevaMethod,
)
from seva_exp.preferences import AmbiguousFilter, AnyFilter
from seva_exp.preferences.ambiguity import SCORE, WEAK, Ambiguity
from seva_exp.training import DpoTraining
from seva_exp.training.loss import NEEDS


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


def check_explained(explain: Explain | None, benchmarks: Collection[str]) -> None:
    """What is explained are answers to benchmarks. Raises ValueError."""
    if explain and not benchmarks:
        raise ValueError(
            "explain: answers to a benchmark's questions are explained, and there is none. Choose "
            "one (benchmark=shapes, say), or take explain=null."
        )


def check_names(ambiguity: Ambiguity | None, views: Collection[str], method: AnyMethod) -> None:
    """No two of a run's answers or scores have one name. Raises ValueError."""
    for name in ambiguity.views if ambiguity else ():
        if f"{WEAK}{name}" in views:
            raise ValueError(
                f"ambiguity.views.{name}: its answers are called {WEAK}{name}, as aug.{WEAK}{name} "
                "is. Give one of them another name."
            )
    if ambiguity and isinstance(method, SentinelMethod):
        raise ValueError(
            "ambiguity: method=sentinel looks at sentences, and the agreement is of whole answers. "
            "Leave it out."
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


def views_of_round(
    method: AnyMethod, sources: Mapping[str, AnySource], number: int
) -> Sequence[str]:
    """The views that round ``number`` (from 1) asks. From weak to strong it is one of V: that in
    place (number - 1) V / R of R rounds by strength, rounded down."""
    names = method.active_views(sources)
    if method.curriculum.views == "all":
        return names
    ranked = sorted(names, key=lambda name: sources[name].strength or 0.0)
    return [ranked[(number - 1) * len(ranked) // method.rounds]]


def check_untrained(
    method: AnyMethod,
    sources: Mapping[str, AnySource],
    tunes: bool,
    benchmarks: Mapping[str, AnyBenchmark],
) -> None:
    """A method that trains nothing has nothing that only a training has a use for. Raises
    ValueError."""
    where = f"method={method.kind} trains nothing"
    if sources:
        raise ValueError(f"aug: {where}, and asks no negative view. Leave +aug out.")
    if tunes:
        raise ValueError(f"sft: {where}. Leave sft out.")
    if not benchmarks:
        raise ValueError(f"benchmark: {where}, and there is nothing to measure. Name one.")


def check_given(
    method: AnyMethod,
    sources: Mapping[str, AnySource],
    ambiguity: Ambiguity | None,
    dpo: DpoTraining,
    tunes: bool,
) -> None:
    """With data that brings its pairs nothing is asked, so nothing may look at what was answered.
    Raises ValueError."""
    where = "data=pairs brings chosen and rejected answers"
    if sources:
        names = ", ".join(sorted(sources))
        raise ValueError(f"aug: {where}, so no view is asked ({names}). Leave +aug out.")
    if not isinstance(method, SevaMethod) or method.negatives != "all":
        asked = f"method={method.kind}" + f" method.negatives={method.negatives}"
        raise ValueError(f"{asked}: {where}. Take method=seva, as it is.")
    if method.rounds > 1:
        raise ValueError(f"method.rounds={method.rounds}: {where}, so there is one round.")
    if method.prompts:
        raise ValueError(f"method.prompts={method.prompts}: {where} to its own questions.")
    if ambiguity:
        raise ValueError(f"ambiguity: {where}, so nothing is asked under weak views. Leave it out.")
    if tunes:
        raise ValueError(f"sft: {where}, and stage 2 is STIC's. Leave sft out.")
    for need, who in dpo.needs.items():
        term = f"dpo.loss: its term '{who}'" if who in dpo.terms else f"dpo.weights: kind={who}"
        raise ValueError(f"{term} needs {NEEDS[need]}; {where}, and no view. Take another one.")
    if dpo.ordered:
        raise ValueError(f"dpo.loss: {dpo.ordered} needs views in an order; {where} alone.")


def check_order(method: AnyMethod, sources: Mapping[str, AnySource], term: str) -> None:
    """The pictures that an ordered loss looks at have an order. Raises ValueError."""
    where = f"dpo.loss: its term '{term}' orders pictures by strength, and "
    shown = {name: source for name, source in sources.items() if "images" in source.gives}
    _check_strengths(where, shown)
    if len(shown) < 2:
        raise ValueError(
            f"{where}there is one picture (aug: {', '.join(shown)}). Add another strength of it, "
            "or take dpo.loss=image."
        )
    if (which := method.negatives) != "all":
        raise ValueError(
            f"{where}method.negatives={which} shows each sample one. Take method.negatives=all."
        )


def _check_strengths(where: str, sources: Mapping[str, AnySource]) -> None:
    """The views differ in strength, on one scale. Raises ValueError, which begins with
    ``where``."""
    for name, source in sources.items():
        if source.strength is None:
            raise ValueError(f"{where}aug.{name}: kind={source.kind} has none. Leave it out.")
    if len(kinds := {source.kind: name for name, source in sources.items()}) > 1:
        several = ", ".join(f"aug.{name} is {kind}" for kind, name in kinds.items())
        raise ValueError(f"{where}views of two kinds have no common scale: {several}.")
    by_strength: dict[float | None, str] = {}
    for name, source in sources.items():
        if (first := by_strength.setdefault(source.strength, name)) != name:
            raise ValueError(f"{where}aug.{first} and aug.{name} are equally strong.")


def check_curriculum(
    method: AnyMethod,
    sources: Mapping[str, AnySource],
    dpo: DpoTraining,
    benchmarks: Mapping[str, AnyBenchmark],
) -> None:
    """What differs from round to round has rounds, views in an order, and a benchmark. Raises
    ValueError."""
    own = method.curriculum
    if method.rounds == 1 and own != Curriculum():
        raise ValueError(
            "method.curriculum: with method.rounds=1 nothing differs from round to round. Set "
            "method.rounds to 2 or more."
        )
    if own.replay and own.data != "new":
        raise ValueError(
            f"method.curriculum.replay={own.replay}: with data=same each round has a pair of every "
            "sample. Set method.curriculum.data=new, or replay=0."
        )
    if own.data == "new" and isinstance(method, SentinelMethod):
        raise ValueError(
            "method.curriculum.data=new: method=sentinel asks of all samples in each round. Take "
            "data=same."
        )
    if own.views == "weak_to_strong":
        _check_weak_to_strong(method, sources, dpo)
    if own.measure:
        _check_stop(own, benchmarks)


def _check_weak_to_strong(
    method: AnyMethod, sources: Mapping[str, AnySource], dpo: DpoTraining
) -> None:
    where = "method.curriculum.views=weak_to_strong"
    if isinstance(method, BestOfKMethod) or method.negatives != "all":
        raise ValueError(
            f"{where} asks one view a round, and method={method.kind} with negatives="
            f"{method.negatives} chooses otherwise. Take method.negatives=all, or views=all."
        )
    if dpo.ordered:
        raise ValueError(
            f"{where} shows one picture a round, and the term '{dpo.ordered}' of dpo.loss orders "
            "several. Take another loss, or views=all."
        )
    _check_strengths(f"{where} goes by strength, and ", sources)
    if not 2 <= len(sources) <= method.rounds:
        raise ValueError(
            f"{where}: {len(sources)} views and {method.rounds} rounds; there must be two views at "
            "least, and as many rounds as views or more."
        )


def _check_stop(own: Curriculum, benchmarks: Mapping[str, AnyBenchmark]) -> None:
    assert own.measure
    where, (name, split, metric) = f"method.curriculum.stop={own.stop}", own.measure
    benchmark = benchmarks.get(name)
    if benchmark is None:
        raise ValueError(f"{where}: no benchmark {name} in the config.{suggest(name, benchmarks)}")
    metrics = {f"{one.split}/{one.name}" for one in benchmark.metrics()}
    if metrics and f"{split}/{metric}" not in metrics:
        known = suggest(f"{split}/{metric}", metrics)
        raise ValueError(f"{where}: {name} has no metric {split}/{metric}.{known}")
    if benchmark.judged:
        raise ValueError(f"{where}: a judge scores {name} when all rounds are done. Take another.")
    if benchmark.split != "selection":
        raise ValueError(
            f"{where}: what a round is chosen by must not be reported on the same questions. Set "
            f"benchmark.{name}.split=selection, and add one with split=test to report on."
        )


def check_learned(
    ambiguity: Ambiguity | None,
    sources: Mapping[str, AnySource],
    dpo: DpoTraining,
    generation: AnyGeneration,
) -> None:
    """Pictures that the model finds are shown where they were found. Raises ValueError."""
    for name, view in (ambiguity.views if ambiguity else {}).items():
        if view.learned:
            raise ValueError(
                f"ambiguity.views.{name}: kind={view.kind} is no weak view. Leave it out."
            )
    for name, source in sources.items():
        if source.learned and not generation.in_process:
            raise ValueError(
                f"aug.{name}: kind={source.kind} takes gradients of the model that is loaded here, "
                f"and generation={generation.kind} has another answer. Take generation=hf."
            )
        if source.learned and "images" in dpo.needs:
            raise ValueError(
                f"aug.{name}: kind={source.kind} shows its picture for an answer alone, and "
                f"'{dpo.needs['images']}' looks at pictures in training. Take another loss."
            )
