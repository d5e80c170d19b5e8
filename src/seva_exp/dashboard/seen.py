"""What finished runs have to show: fields that differ, scores, training curves, pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seva_exp.errors import InputError
from seva_exp.experiment import Experiment
from seva_exp.records import ALIGNED
from seva_exp.report.verdict import is_number
from seva_exp.spec import Json, canonical
from seva_exp.tracking.content import column, columns_of, flatten


@dataclass(frozen=True)
class Metric:
    """A score as runs log it: ``benchmark/<name>/<split>/<metric>`` with ``/base``, ``/aligned``,
    ``/delta`` behind it. ``better`` is ``higher``, ``lower`` or ``neutral``."""

    name: str
    better: str

    @property
    def benchmark(self) -> str:
        """Its name, with the protocol where that is not the usual one."""
        return self.name.removeprefix("benchmark/").rsplit("/", 2)[0]


@dataclass(frozen=True)
class Seen:
    """Of several runs, under the names that a tracker has for it."""

    fields: dict[str, bool]
    """Dotted config fields that differ, the seed aside -> whether all values are numbers."""
    metrics: tuple[Metric, ...]
    training: tuple[str, ...]
    """Logged numbers of training stages, e.g. ``align/loss``."""
    views: tuple[str, ...]
    """Negative views, of which example pictures are logged."""
    dropped: tuple[str, ...]
    """Reasons for which pairs were left out."""

    def headlines(self, count: int) -> list[Metric]:
        """Of each benchmark's parts (``pope_random`` is of the part ``pope``) the first metric
        that has a direction, ``count`` at most."""
        first: dict[tuple[str, str], Metric] = {}
        for metric in self.metrics:
            if metric.better != "neutral":
                part = metric.name.rsplit("/", 2)[1].partition("_")[0]
                first.setdefault((metric.benchmark, part), metric)
        return list(first.values())[:count]


def look(folders: Sequence[Path]) -> Seen:
    """Read finished runs. Raises InputError where there is none."""
    runs = [read for folder in folders if (read := _read(folder))]
    if not runs:
        named = ", ".join(str(folder) for folder in folders) or "nothing"
        raise InputError(f"no finished run in {named}: give folders such as runs/2026-*.")
    reports, configs = [run[0] for run in runs], [run[1] for run in runs]
    pairs = [report["pairs"] for report in reports if report.get("pairs")]
    return Seen(
        fields=_differing(configs),
        metrics=_unique(m for report, config in runs for m in _metrics(report, config)),
        training=_unique(name for folder in folders for name in _training(folder)),
        views=_unique(view for config in configs for view in config.get("aug") or {}),
        dropped=_unique(reason for one in pairs for reason in one["dropped"]),
    )


def _unique(found: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(found))


def _read(folder: Path) -> tuple[Json, Json] | None:
    """Report and config; None for a folder without a finished run (``latest``, ``multirun`` ...)"""
    import yaml

    if folder.is_symlink() or not (folder / "report.json").is_file():
        return None
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{folder}: cannot be read ({' '.join(str(error).split())}).") from None
    return report, {name: config[name] for name in Experiment.model_fields if name in config}


def _differing(configs: Sequence[Json]) -> dict[str, bool]:
    """A field that only some runs have counts by their values alone: that it is there at all is
    told by ``views`` or a ``kind``."""
    values: dict[str, list[Any]] = {}
    for config in configs:
        for name, value in flatten(columns_of(config), between="."):
            values.setdefault(name, []).append(value)
    found = {n: some for n, some in values.items() if len({canonical(v) for v in some}) > 1}
    return {name: all(map(is_number, some)) for name, some in found.items() if name != "seed"}


def _metrics(report: Json, config: Json) -> list[Metric]:
    protocols = {score["benchmark"]: score["protocol"] for score in report["scores"]}
    return [
        Metric(
            f"benchmark/{column(d['benchmark'], protocols[d['benchmark']], config)}"
            f"/{d['split']}/{d['metric']}",
            d["better"],
        )
        for d in report["deltas"]
        if d["model"] == ALIGNED
    ]


def _training(folder: Path) -> list[str]:
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines]
    numbers = [(row["stage"], name) for row in rows for name, v in row.items() if is_number(v)]
    return list(dict.fromkeys(f"{stage}/{name}" for stage, name in numbers if name != "step"))
