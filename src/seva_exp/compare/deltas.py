"""Is a difference more than chance? Every model against its base, or against chosen runs.

A page holds many tests. Those of one benchmark under one protocol are one family, and p is
corrected for their number (Holm): one test a variant (its runs differ in nothing but their seed)
and metric. A variant's p is the largest of its seeds, and 1 where they differ in direction, so that
what is significant is seen with every seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from seva_exp.benchmarks.guards import priced
from seva_exp.compare.runs import ComparedRun
from seva_exp.core.errors import InputError
from seva_exp.core.records import ALIGNED, BASE, Delta, Prediction, Score
from seva_exp.report.significance import Verdict, arrow, in_full, label, verdict
from seva_exp.stages import paired


@dataclass(frozen=True)
class Column:
    """A metric under its protocol: two protocols are never one column."""

    benchmark: str
    protocol: str
    split: str
    metric: str
    better: str

    @property
    def id(self) -> str:
        """The metric's id in W&B and in the CSV."""
        return f"{self.benchmark}@{self.protocol}/{self.split}/{self.metric}"

    @property
    def label(self) -> str:
        """The metric's name in a table's head."""
        return f"{label(self.split, self.metric)} {arrow(self.better)}".strip()


@dataclass(frozen=True)
class Measured:
    """A model with its scores: a run's final one, or the base that runs share."""

    run: ComparedRun
    model: str
    scores: dict[Column, Score]
    sharing: tuple[ComparedRun, ...] = ()
    """Of a base: the runs that measured it so; ``run`` is the first of them."""

    def predictions(self, benchmark: str) -> list[Prediction]:
        """The model's answers with their scores; none where the files are gone."""
        return self.run.predictions(self.model, benchmark)

    @property
    def variant(self) -> str:
        """Equal for models of runs that differ in nothing but their seed; a base is its own."""
        return f"{BASE} {self.run.folder}" if self.model == BASE else self.run.variant


@dataclass(frozen=True)
class References:
    """The final models of the runs that others are compared with: none (each with its own base),
    one (all with it), or several of one variant (each with that of its own seed)."""

    models: tuple[Measured, ...] = ()

    def of(self, one: Measured) -> Measured | None:
        """What a model is compared with; None for a base where there are several."""
        if len(self.models) < 2:
            return self.models[0] if self.models else None
        same = (other for other in self.models if other.run.report.seed == one.run.report.seed)
        return None if one.model == BASE else next(same, None)

    def has(self, one: Measured) -> bool:
        """Whether it is one of them."""
        return any((m.run.folder, m.model) == (one.run.folder, one.model) for m in self.models)


@dataclass(frozen=True)
class CorrectedDelta:
    """A difference; the p of its variant corrected for the ``tests`` of its family; and what both
    say in words."""

    delta: Delta
    corrected: float
    tests: int

    @property
    def verdict(self) -> Verdict:
        """By the corrected p."""
        return verdict(replace(self.delta, p=self.corrected))

    @property
    def verdict_text(self) -> str:
        """The verdict as a reader is told it."""
        return in_full(replace(self.delta, p=self.corrected))


def measured(run: ComparedRun, model: str) -> Measured:
    """One model of a run with its scores."""
    found = {
        Column(s.benchmark, s.protocol, s.split, s.metric, s.better): s
        for s in run.report.scores
        if s.model == model
    }
    return Measured(run, model, found)


def models(runs: Sequence[ComparedRun]) -> list[Measured]:
    """Each different base once, then the final model of every run (also of one that measured
    nothing: its pairs and its training are still compared)."""
    bases: dict[tuple[Score, ...], list[ComparedRun]] = {}
    for run in runs:
        if scores := measured(run, BASE).scores:
            bases.setdefault(tuple(scores.values()), []).append(run)
    shared = [replace(measured(group[0], BASE), sharing=tuple(group)) for group in bases.values()]
    return [*shared, *(measured(run, ALIGNED) for run in runs)]


def columns(found: Iterable[Measured]) -> list[Column]:
    """All metrics, a benchmark and protocol after the other."""
    seen = dict.fromkeys(column for one in found for column in one.scores)
    tests = list(dict.fromkeys((c.benchmark, c.protocol) for c in seen))
    return sorted(seen, key=lambda c: tests.index((c.benchmark, c.protocol)))


def changes(
    found: Sequence[Measured],
    references: References,
    grouped: Sequence[Sequence[ComparedRun]],
) -> list[dict[Column, CorrectedDelta]]:
    """Per model the change of its metrics: against ``references``, or, without any, of each final
    model against its run's own base. Paired over the same questions' pictures; where two models
    answered different questions there is none. ``grouped`` are the runs by variant (``groups``)."""
    deltas = [_deltas(one, references) for one in found]
    corrected = _corrected(found, deltas, grouped)
    return [
        {
            column: CorrectedDelta(delta, *corrected[one.variant, column])
            for column, delta in row.items()
        }
        for one, row in zip(found, deltas, strict=True)
    ]


def _corrected(
    found: Sequence[Measured],
    rows: Sequence[dict[Column, Delta]],
    grouped: Sequence[Sequence[ComparedRun]],
) -> dict[tuple[str, Column], tuple[float, int]]:
    """Of each variant and metric the corrected p, and for how many tests it is. Of several runs
    with one seed the one counts that is in a group."""
    from seva_exp.benchmarks.statistics import holm

    taken = {run.folder for group in grouped for run in group}
    families: dict[tuple[str, str], dict[tuple[str, Column], dict[int, Delta]]] = {}
    for one, row in sorted(
        zip(found, rows, strict=True), key=lambda pair: pair[0].run.folder in taken
    ):
        for column, delta in row.items():
            family = families.setdefault((column.benchmark, column.protocol), {})
            family.setdefault((one.variant, column), {})[one.run.report.seed] = delta
    return {
        test: (p, len(family))
        for family in families.values()
        for test, p in zip(
            family, holm([joint_p(list(d.values())) for d in family.values()]), strict=True
        )
    }


def joint_p(seeds: Sequence[Delta]) -> float:
    """The largest p of the seeds, and 1 where they differ in direction: every seed shows it."""
    if len({delta.value > 0 for delta in seeds}) > 1:
        return 1.0
    return max(delta.p for delta in seeds)


def _deltas(one: Measured, references: References) -> dict[Column, Delta]:
    if not references.models:
        if one.model == BASE:
            return {}
        named = {(c.benchmark, c.split, c.metric): c for c in one.scores}
        return {
            named[key]: delta
            for delta in _of_report(one.run)
            if (key := (delta.benchmark, delta.split, delta.metric)) in named
        }
    reference = references.of(one)
    if reference is None or references.has(one):
        return {}
    shared = [column for column in one.scores if column in reference.scores]
    found = {}
    for name in dict.fromkeys(column.benchmark for column in shared):
        paired = {(d.split, d.metric): d for d in paired_changes(one, reference, name)}
        for column in shared:
            if column.benchmark == name and (column.split, column.metric) in paired:
                found[column] = paired[column.split, column.metric]
    return found


def _of_report(run: ComparedRun) -> list[Delta]:
    """A run's own deltas, with the prices that its report may be too old to hold."""
    found: list[Delta] = []
    for name in dict.fromkeys(delta.benchmark for delta in run.report.final_deltas):
        mine = [delta for delta in run.report.final_deltas if delta.benchmark == name]
        try:
            found += priced(mine, run.benchmark(name).guards)
        except InputError:
            found += mine
    return found


def paired_changes(one: Measured, reference: Measured, name: str) -> list[Delta]:
    """one - reference on one benchmark; empty when they answered different questions."""
    before, after = reference.predictions(name), one.predictions(name)
    if not before or [(p.sample_id, p.group) for p in before] != [
        (p.sample_id, p.group) for p in after
    ]:
        return []
    try:
        benchmark = one.run.benchmark(name)
    except InputError:
        return []
    return paired(benchmark, name, before, after)
