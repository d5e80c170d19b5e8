"""What is compared: models by metrics, what differs between them, what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seva_exp.compare.deltas import Change, Column, Measured, changes, columns, models
from seva_exp.compare.differences import Value, differing, short_names
from seva_exp.compare.runs import ComparedRun
from seva_exp.core.records import ALIGNED, BASE


@dataclass(frozen=True)
class Comparison:
    """``models`` are the bases first, then each run's final model; ``labels`` what each is called:
    the values by which it differs; ``fields`` dotted field -> its value for each model;
    ``changes`` is per model. Without a ``reference`` each run is compared with its own base."""

    runs: Sequence[ComparedRun]
    reference: Measured | None
    models: list[Measured]
    fields: dict[str, list[Value | None]]
    short: dict[str, str]
    labels: list[str]
    columns: list[Column]
    changes: list[dict[Column, Change]]

    @classmethod
    def of(cls, runs: Sequence[ComparedRun], against: ComparedRun | None = None) -> Comparison:
        """Compare runs, each with its base or all with the final model of one of them."""
        found = models(runs)
        reference = next(
            (
                one
                for one in found
                if against and one.model == ALIGNED and one.run.folder == against.folder
            ),
            None,
        )
        fields = differences(found)
        short = short_names(fields)
        labels = _labels(found, {short[name]: values for name, values in fields.items()})
        metrics, changed = columns(found), changes(found, reference)
        return cls(runs, reference, found, fields, short, labels, metrics, changed)

    def told(self, which: Sequence[int]) -> dict[str, Value]:
        """Short field -> value, of the fields in which these models agree: what a thing that they
        share (their pairs, a view's answers) goes by."""
        found = {}
        for name, values in self.fields.items():
            several = {values[i] for i in which}
            if len(several) == 1 and (value := several.pop()) is not None:
                found[self.short[name]] = value
        return found

    @property
    def reference_label(self) -> str:
        """What the chosen run is called; empty without one."""
        return self.labels[self.models.index(self.reference)] if self.reference else ""

    @property
    def finals(self) -> list[int]:
        """Numbers of the models that are no base."""
        return [i for i, one in enumerate(self.models) if one.model != BASE]


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


def in_words(fields: dict[str, Value]) -> str:
    """``step=300, beta=0.1``."""
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def _labels(found: Sequence[Measured], fields: dict[str, list[Value | None]]) -> list[str]:
    bases = sum(one.model == BASE for one in found)
    out = []
    for i, one in enumerate(found):
        told = in_words({n: v for n, values in fields.items() if (v := values[i]) is not None})
        if one.model == BASE:
            out.append(f"base model, {told}" if bases > 1 and told else "base model")
        else:
            out.append(told or one.run.name)
    return out
