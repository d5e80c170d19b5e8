"""What a sweep would compute: stages after sharing, cached, to do; and how long that may take, how
much room, by what the likest artifacts of the store took."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from seva_exp.command.job import Job, varying
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError
from seva_exp.core.manifest import Fault, read_manifest
from seva_exp.core.spec import Json, canonical
from seva_exp.core.store import Manifest, Store
from seva_exp.experiment import plan_run
from seva_exp.experiment.preflight import Preflight
from seva_exp.report.console import table
from seva_exp.stages import Stage

SHARED, CACHED, UNDONE = "shared", "cached", "to do"
SAMPLES = "samples"
BY_SAMPLE = (SAMPLES, "answers", "pairs", "reference")
"""Stages whose time and disk grow with the samples."""


@dataclass(frozen=True)
class Cost:
    """Time and disk that a stage may take. ``seconds``, ``size`` (bytes): None where no such stage
    was ever made."""

    seconds: float | None
    size: float | None
    judge_calls: int


@dataclass(frozen=True)
class RunCosts:
    """One run: how many of its stages are in each state, and the costs of those to do."""

    name: str
    counts: dict[str, int]
    costs: tuple[Cost, ...]

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        states = (self.counts[state] for state in (SHARED, CACHED, UNDONE))
        return (
            self.name,
            str(sum(self.counts.values())),
            *map(str, states),
            _sum([cost.seconds for cost in self.costs], duration),
            str(sum(cost.judge_calls for cost in self.costs)),
            _sum([cost.size for cost in self.costs], size),
        )


class Forecast:
    """The plans of a sweep's runs, one table."""

    def __init__(self) -> None:
        self._rows: list[RunCosts] = []
        self._seen: set[str] = set()
        self._obstacles: dict[str, dict[str, None]] = {}
        self._preflight = Preflight()
        self._digests: dict[Path, FileDigests] = {}
        self._past: dict[Path, Past] = {}

    def add(self, job: Job) -> None:
        """Count one more run. A stage that it shares with one before is counted there. Raises
        InputError."""
        wanted, overrides = job.wanted(), job.overrides
        root = wanted.machine.store_root()
        digests = self._digests.setdefault(root, FileDigests(root))
        plan, work = plan_run(
            wanted.experiment, wanted.machine, wanted.options, overrides, digests, self._preflight
        )
        past = self._past.setdefault(root, Past(root))
        counts, costs = {SHARED: 0, CACHED: 0, UNDONE: 0}, []
        for planned, stage in zip(plan.stages, work.chosen, strict=True):
            state = CACHED if planned.cached else UNDONE
            if stage.key in self._seen:
                state = SHARED
            self._seen.add(stage.key)
            counts[state] += 1
            if state == UNDONE:
                costs.append(past.cost(stage))
        name = " ".join(varying(overrides, job.swept or ())) or plan.name
        self._rows.append(RunCosts(name, counts, tuple(costs)))
        for title, found in plan.obstacles.items():
            self._obstacles.setdefault(title, {}).update(dict.fromkeys(found))

    def text(self) -> str:
        """The table; what must still be given before it can run. Empty without a run."""
        if not self._rows:
            return ""
        states = (SHARED, CACHED, UNDONE)
        counts = {state: sum(row.counts[state] for row in self._rows) for state in states}
        total = RunCosts("all", counts, tuple(cost for row in self._rows for cost in row.costs))
        needed = counts[CACHED] + counts[UNDONE]
        header = ("run", "stages", *states, "time", "judge calls", "disk")
        lines = [
            f"dry run: {len(self._rows)} run{'s' * (len(self._rows) > 1)}; of"
            f" {sum(counts.values())} stages {needed} are needed after sharing,"
            f" {counts[CACHED]} cached, {counts[UNDONE]} to do",
            table(header, [row.cells() for row in (*self._rows, total)], right=range(1, 8)),
            "time is the sum over stages, one after the other, as the likest past ones took"
            + "".join(f"; {size(free)} free in {root}" for root, free in self._free()),
        ]
        for title, found in self._obstacles.items():
            lines += [f"{title}:", *(f"  {one}" for one in found)]
        return "\n".join(lines)

    def _free(self) -> Iterable[tuple[Path, int]]:
        for root in self._past:
            folders = (root.absolute(), *root.absolute().parents)
            there = next(folder for folder in folders if folder.is_dir())
            yield root, shutil.disk_usage(there).free


class Past:
    """Time and disk that a store's artifacts took."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root)
        self._known: dict[str, frozenset[str]] = {}

    @cached_property
    def _manifests(self) -> dict[str, Manifest]:
        """By key; of those that can be read."""
        found = {}
        for artifact in self._store.artifacts():
            with suppress(Fault, InputError):
                one = read_manifest(artifact)
                found[one.key] = one
        return found

    def cost(self, stage: Stage) -> Cost:
        """The medians of those artifacts of this stage and model that came about in the likest way:
        with the fewest fields that differ, in the stage's spec and in all that it was made from."""
        spec, own = stage.spec(), _leaves_of(stage)
        alike: dict[int, list[Manifest]] = {}
        for one in self._manifests.values():
            if one.stage == stage.name and one.spec.get("model") == spec.get("model"):
                alike.setdefault(len(self._leaves("", one) ^ own), []).append(one)
        judged = stage.judge_estimate(self._store)
        calls = judged.calls if judged else 0
        if not alike:
            return Cost(None, None, calls)
        nearest = alike[min(alike)]
        shares = [self._share(stage, one) for one in nearest]
        return Cost(
            statistics.median(s * one.seconds for s, one in zip(shares, nearest, strict=True)),
            statistics.median(s * self._size(one) for s, one in zip(shares, nearest, strict=True)),
            calls,
        )

    def _share(self, stage: Stage, past: Manifest) -> float:
        """How many times the samples of a past artifact this stage has; 1 where that is not known,
        or where time does not go by samples."""
        wanted = self._samples(stage) if stage.name in BY_SAMPLE else None
        then = self._samples_then(past.key) if wanted else None
        return wanted / then if wanted and then else 1.0

    def _samples(self, stage: Stage) -> int | None:
        """The number of a stage's samples: those that were made, else those to be drawn."""
        if stage.name != SAMPLES:
            return next((n for one in stage.inputs.values() if (n := self._samples(one))), None)
        drawn = stage.spec()["data"].get("samples")
        return self._samples_then(stage.key) or (drawn if isinstance(drawn, int) else None)

    def _samples_then(self, key: str) -> int | None:
        one = self._manifests.get(key)
        if one is None or one.stage == SAMPLES:
            return one.summary.get("samples") if one else None
        return next((n for key in one.inputs.values() if (n := self._samples_then(key))), None)

    def _size(self, one: Manifest) -> int:
        files = self._store.path(one.stage, one.key).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def _leaves(self, label: str, one: Manifest) -> frozenset[str]:
        if one.key not in self._known:
            sources = (
                self._leaves(name, self._manifests[key])
                for name, key in one.inputs.items()
                if key in self._manifests
            )
            self._known[one.key] = frozenset().union(*sources)
        return self._known[one.key] | _flat(label, one.spec)


def _leaves_of(stage: Stage, label: str = "") -> frozenset[str]:
    sources = (_leaves_of(source, source.label) for source in stage.inputs.values())
    return frozenset().union(_flat(label, stage.spec()), *sources)


def _flat(path: str, value: Json) -> frozenset[str]:
    """Every plain value with its path."""
    if isinstance(value, dict) and value:
        parts = (_flat(f"{path}/{key}", child) for key, child in value.items())
        return frozenset().union(*parts)
    return frozenset([f"{path}={canonical(value)}"])


def _sum(values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not values:
        return "-"
    if not known:
        return "unknown"
    missing = len(values) - len(known)
    return shown(sum(known)) + (f" + {missing} unknown" if missing else "")


def duration(seconds: float) -> str:
    """In the largest unit of which there is more than one and a half."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def size(bytes: float) -> str:
    """In binary units."""
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if bytes >= 2**power:
            return f"{bytes / 2**power:.1f} {unit}"
    return f"{bytes / 2**10:.0f} KiB"
