"""What a sweep would compute: stages after sharing, cached, to do; and how long that may take, how
much room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from seva_exp.command.job import Job, varying
from seva_exp.core.digests import FileDigests
from seva_exp.experiment import plan_run
from seva_exp.experiment.past import Cost, Past, duration, free_in, size
from seva_exp.experiment.preflight import Preflight
from seva_exp.report.console import table

SHARED, CACHED, UNDONE = "shared", "cached", "to do"
CALLS = "judge calls"


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
        header = ("run", "stages", *states, "time", CALLS, "disk")
        lines = [
            f"dry run: {len(self._rows)} run{'s' * (len(self._rows) > 1)}; of"
            f" {sum(counts.values())} stages {needed} are needed after sharing,"
            f" {counts[CACHED]} cached, {counts[UNDONE]} to do",
            _table(header, [*_folded(self._rows), total.cells()]),
            "time is the sum over stages, one after the other, as the likest past ones took",
            *(f"{size(free_in(root))} free in {root}" for root in self._past),
        ]
        for title, found in self._obstacles.items():
            lines += [f"{title}:", *(f"  {one}" for one in found)]
        return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    """Without the column of judge calls where there are none."""
    kept = [i for i, name in enumerate(header) if name != CALLS or any(r[i] != "0" for r in rows)]
    few = [tuple(row[i] for i in kept) for row in (header, *rows)]
    return table(few[0], few[1:], right=range(1, len(kept)))


FOLDED = 3
"""From so many runs on, one after the other and alike but for their names, they are one row."""


def _folded(rows: Sequence[RunCosts]) -> Iterator[tuple[str, ...]]:
    """The rows of the table; of runs that are alike the first one, and how many there are."""
    for _, group in groupby((row.cells() for row in rows), key=lambda cells: cells[1:]):
        alike = list(group)
        if len(alike) < FOLDED:
            yield from alike
        else:
            yield (f"{alike[0][0]} and {len(alike) - 1} like it, each", *alike[0][1:])


def _sum(values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not values:
        return "-"
    if not known:
        return "unknown"
    missing = len(values) - len(known)
    return shown(sum(known)) + (f" + {missing} unknown" if missing else "")
