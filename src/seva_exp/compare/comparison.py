"""What is compared: models by metrics, what differs between them, what changed. Computed once from
finished runs; the page, the CSV, the Markdown and the LaTeX only format it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seva_exp.compare.costs import costs_of
from seva_exp.compare.deltas import (
    Column,
    CorrectedDelta,
    Measured,
    References,
    changes,
    columns,
    models,
)
from seva_exp.compare.differences import Value, differing, in_words, short_names
from seva_exp.compare.runs import ComparedRun, distinct_names, groups
from seva_exp.compare.variants import Variant, variants
from seva_exp.core.records import ALIGNED, BASE, Finding
from seva_exp.report.significance import finding_text


@dataclass(frozen=True)
class HolmFamily:
    """The metrics of one benchmark under one protocol. ``tests``: for how many changes their p is
    corrected; 0 where nothing changed."""

    benchmark: str
    protocol: str
    columns: tuple[Column, ...]
    tests: int


@dataclass(frozen=True)
class Comparison:
    """``models`` are the bases first, then each run's final model; ``labels`` what each is called:
    the values by which it differs; ``names`` what the page's rows are; ``fields`` dotted field ->
    its value for each model; ``costs`` and ``changes`` are per model (a base took nothing),
    ``variants`` have the seeds together. Without ``references`` each run is compared with its own
    base."""

    runs: Sequence[ComparedRun]
    references: References
    models: list[Measured]
    fields: dict[str, list[Value | None]]
    short: dict[str, str]
    labels: list[str]
    names: list[str]
    costs: list[dict[str, float]]
    columns: list[Column]
    changes: list[dict[Column, CorrectedDelta]]
    families: list[HolmFamily]
    variants: list[Variant]
    best: tuple[str, ...] = ()
    """Which variant is best, a line a metric (``best.best``)."""

    @classmethod
    def of(cls, runs: Sequence[ComparedRun], against: Sequence[ComparedRun] = ()) -> Comparison:
        """Compare runs, each with its base, or all with the final model of one of them, or each
        with that of its own seed."""
        found = models(runs)
        references = References(tuple(filter(None, (_final(found, one) for one in against))))
        fields = differences(found)
        short = short_names(fields)
        labels = _labels(found, {short[name]: values for name, values in fields.items()})
        metrics, grouped = columns(found), groups(runs)
        changed = changes(found, references, grouped)
        return cls(
            runs=runs,
            references=references,
            models=found,
            fields=fields,
            short=short,
            labels=labels,
            names=_names(found, labels),
            costs=[costs_of(one.run) if one.model != BASE else {} for one in found],
            columns=metrics,
            changes=changed,
            families=_families(metrics, changed),
            variants=variants(grouped, found, changed, metrics, references),
        )

    def shared_fields(self, which: Sequence[int]) -> dict[str, Value]:
        """Short field -> value, of the fields in which these models agree: what a thing that they
        share (their pairs, a view's answers) goes by."""
        found = {}
        for name, values in self.fields.items():
            several = {values[i] for i in which}
            if len(several) == 1 and (value := several.pop()) is not None:
                found[self.short[name]] = value
        return found

    @property
    def findings(self) -> list[str]:
        """What must be known before the numbers, a line each: of which runs, of which stage. What
        runs share (a base's evaluation) is told once."""
        found: dict[tuple[str, str], tuple[Finding, list[str]]] = {}
        for i in self.finals:
            run = self.models[i].run
            for one in run.report.findings:
                same = run.key(one.stage), one.kind
                found.setdefault(same, (one, []))[1].append(self.names[i])
        return [f"{', '.join(names)}: {finding_text(one)}" for one, names in found.values()]

    @property
    def reference_name(self) -> str:
        """What the runs are compared with, as the page calls it; empty for each one's own base."""
        chosen = self.references.models
        if not chosen:
            return ""
        place = self.models.index(chosen[0])
        if len(chosen) == 1:
            return self.names[place]
        title = next(one.title for one in self.variants if place in one.models)
        return f"{title}, seed by seed"

    @property
    def finals(self) -> list[int]:
        """Numbers of the models that are no base."""
        return [i for i, one in enumerate(self.models) if one.model != BASE]


def _final(found: Sequence[Measured], run: ComparedRun) -> Measured | None:
    """A run's final model, if it is among these."""
    mine = (one for one in found if one.model == ALIGNED and one.run.folder == run.folder)
    return next(mine, None)


def _families(
    metrics: Sequence[Column], changed: Sequence[dict[Column, CorrectedDelta]]
) -> list[HolmFamily]:
    found: dict[tuple[str, str], list[Column]] = {}
    for column in metrics:
        found.setdefault((column.benchmark, column.protocol), []).append(column)
    tests = {column: change.tests for row in changed for column, change in row.items()}
    return [
        HolmFamily(*name, tuple(mine), max(tests.get(column, 0) for column in mine))
        for name, mine in found.items()
    ]


def differences(found: Sequence[Measured]) -> dict[str, list[Value | None]]:
    """Field -> its value for each model, where the runs differ in it; ``seed`` is one of them. A
    base has what all runs that share it agree on."""
    finals = [one.run for one in found if one.model != BASE]
    fields = differing([run.experiment for run in finals])
    if len({run.report.seed for run in finals}) > 1:
        fields["seed"] = [run.report.seed for run in finals]
    place = {run.folder: i for i, run in enumerate(finals)}

    def cell(one: Measured, values: Sequence[Value | None]) -> Value | None:
        if one.model != BASE:
            return values[place[one.run.folder]]
        shared = {values[place[run.folder]] for run in one.sharing}
        return shared.pop() if len(shared) == 1 else None

    return {name: [cell(one, values) for one in found] for name, values in fields.items()}


def _labels(found: Sequence[Measured], fields: dict[str, list[Value | None]]) -> list[str]:
    bases = sum(one.model == BASE for one in found)
    out = []
    for i, one in enumerate(found):
        own = in_words({n: v for n, values in fields.items() if (v := values[i]) is not None})
        if one.model == BASE:
            out.append(f"base model, {own}" if bases > 1 and own else "base model")
        else:
            out.append(own or one.run.name)
    return out


def _names(found: Sequence[Measured], labels: Sequence[str]) -> list[str]:
    """A run goes by what its command does not share with the others', or by the name that it was
    given, or by the fields in which it differs."""
    finals = [one.run for one in found if one.model != BASE]
    own = distinct_names([run.words for run in finals]) or [run.user_name for run in finals]
    bases = [""] * (len(found) - len(finals))
    return [name or label for name, label in zip([*bases, *own], labels, strict=True)]
