"""What finished runs have to show: fields that differ, scores, training curves, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seva_exp.compare.runs import ComparedRun
from seva_exp.core.spec import Json, canonical, flatten
from seva_exp.report.significance import is_number
from seva_exp.tracking.content import column, columns_of


@dataclass(frozen=True)
class LoggedMetric:
    """A score as runs log it: ``benchmark/<name>/<split>/<metric>`` with ``/base``, ``/aligned``,
    ``/delta`` behind it. ``better`` is ``higher``, ``lower`` or ``neutral``."""

    name: str
    better: str

    @property
    def benchmark(self) -> str:
        """The benchmark's name, with the protocol where that is not the usual one."""
        return self.name.removeprefix("benchmark/").rsplit("/", 2)[0]


@dataclass(frozen=True)
class Overview:
    """Of several runs, under the names that a tracker has for it."""

    fields: dict[str, bool]
    """Dotted config fields that differ, the seed aside -> whether all values are numbers."""
    metrics: tuple[LoggedMetric, ...]
    training: tuple[str, ...]
    """Logged numbers of training stages, e.g. ``align/loss``."""
    views: tuple[str, ...]
    """Negative views, of which example pictures are logged."""
    dropped: tuple[str, ...]
    """Reasons for which pairs were left out."""

    def headlines(self, count: int) -> list[LoggedMetric]:
        """Of each benchmark's parts (``pope_random`` is of the part ``pope``) the first metric
        that has a direction, ``count`` at most."""
        first: dict[tuple[str, str], LoggedMetric] = {}
        for metric in self.metrics:
            if metric.better != "neutral":
                part = metric.name.rsplit("/", 2)[1].partition("_")[0]
                first.setdefault((metric.benchmark, part), metric)
        return list(first.values())[:count]


def overview_of(runs: Sequence[ComparedRun]) -> Overview:
    """The panels that these runs fill together."""
    pairs = [run.report.pairs for run in runs if run.report.pairs]
    return Overview(
        fields=_differing([run.experiment for run in runs]),
        metrics=_unique(metric for run in runs for metric in _metrics(run)),
        training=_unique(name for run in runs for name in _training(run)),
        views=_unique(view for run in runs for view in run.experiment.get("aug") or {}),
        dropped=_unique(reason for one in pairs for reason in one.dropped),
    )


def _unique(found: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(found))


def _differing(configs: Sequence[Json]) -> dict[str, bool]:
    """A field that only some runs have counts by their values alone: that it is there at all is
    told by ``views`` or a ``kind``."""
    values: dict[str, list[Any]] = {}
    for config in configs:
        for name, value in flatten(columns_of(config), between="."):
            values.setdefault(name, []).append(value)
    found = {n: some for n, some in values.items() if len({canonical(v) for v in some}) > 1}
    return {name: all(map(is_number, some)) for name, some in found.items()}


def _metrics(run: ComparedRun) -> Iterator[LoggedMetric]:
    protocols = {score.benchmark: score.protocol for score in run.report.scores}
    for delta in run.report.final_deltas:
        name = column(delta.benchmark, protocols[delta.benchmark], run.experiment)
        yield LoggedMetric(f"benchmark/{name}/{delta.split}/{delta.metric}", delta.better)


def _training(run: ComparedRun) -> Iterator[str]:
    for row in run.training():
        yield from (f"{row['stage']}/{n}" for n, v in row.items() if n != "step" and is_number(v))
