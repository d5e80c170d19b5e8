"""Finished runs side by side: `python -m seva_exp.compare runs/*_stic* runs/*_moco*`.

Runs that differ in their seed (and name) only form a group: its change is the mean over seeds with
its standard deviation. The spread over seeds leaves out the benchmark's own sampling error, which
each run's report gives as an interval, and the p beside the change as a test. A table holds many
tests: p is also shown corrected for their number (Holm), and by that changes are marked.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seva_exp.benchmarks.statistics import holm
from seva_exp.errors import InputError
from seva_exp.records import ALIGNED, BASE
from seva_exp.report.verdict import SIGNIFICANCE, arrow, label, p_value
from seva_exp.spec import Json, canonical

APART = ("seed", "name", "machine", "dry_run", "stop_after", "force", "data_root")
"""Fields of a run's config that do not make it another variant."""


NOTE = "\\* p < 0.05 after Holm's correction for the {} changes of this table"
Key = tuple[str, str, str]
"""A metric: split, name, which direction is better."""


@dataclass(frozen=True)
class Finished:
    """A run's folder, as far as it is compared."""

    title: str
    seed: int
    variant: str
    scores: tuple[Json, ...]
    deltas: tuple[Json, ...]


def read_run(folder: Path) -> Finished:
    """Raises InputError when the folder holds no finished run."""
    import yaml

    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        variant = canonical({k: v for k, v in config.items() if k not in APART})
        scores, deltas = tuple(report["scores"]), tuple(report["deltas"])
        return Finished(report["name"], report["seed"], variant, scores, deltas)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"{folder}: holds no finished run ({type(error).__name__}: {why})."
        ) from None


def groups(runs: Sequence[Finished]) -> list[list[Finished]]:
    """Runs of one variant together, a seed once (the last run of it), by seed."""
    found: dict[str, dict[int, Finished]] = {}
    for run in runs:
        found.setdefault(run.variant, {})[run.seed] = run
    return [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in found.values()]


def spread(values: Sequence[float], signed: bool = False) -> str:
    """The mean, and the standard deviation over seeds where there are several (a base that is the
    same for all of them has none)."""
    sign = "+" if signed else ""
    mean = f"{statistics.fmean(values):{sign}.1f}"
    alone = len(values) < 2 or (not signed and len(set(values)) == 1)
    return mean if alone else f"{mean} ± {statistics.stdev(values):.1f}"


def tables(runs: Sequence[Finished]) -> str:
    """Markdown: one table per benchmark and protocol; a row a metric; the base, and the change of
    each group. Where groups have different bases, each stands beside its group."""
    grouped = groups(runs)
    scored = [score for run in runs for score in run.scores]
    out = []
    for name, protocol in dict.fromkeys((s["benchmark"], s["protocol"]) for s in scored):
        mine = [s for s in scored if (s["benchmark"], s["protocol"]) == (name, protocol)]
        metrics = dict.fromkeys((s["split"], s["metric"], s["better"]) for s in mine)
        cells = {key: [_cells(key, group, name, protocol) for group in grouped] for key in metrics}
        tested = _tested(metrics, grouped, name, protocol)
        measured = [i for i in range(len(grouped)) if any(row[i][0] for row in cells.values())]
        shared = all(len({row[i][0] for i in measured}) == 1 for row in cells.values())
        lines = [["metric"]] + [[f"{label(k[0], k[1])} {arrow(k[2])}".strip()] for k in cells]
        for i in measured:
            base = (
                []
                if shared and i != measured[0]
                else [["base", *(r[i][0] for r in cells.values())]]
            )
            told = (f"{row[i][1]}{tested.get((key, i), '')}" for key, row in cells.items())
            change = [_title(grouped[i]), *told]
            for column in (*base, change):
                for line, cell in zip(lines, column, strict=True):
                    line.append(cell)
        lines.insert(1, ["---"] * len(lines[0]))
        out.append(f"{name} ({protocol})\n\n" + "\n".join(f"| {' | '.join(x)} |" for x in lines))
        out += [NOTE.format(len(tested))] if tested else []
    return "\n\n".join(out)


def _title(group: Sequence[Finished]) -> str:
    """What the group's runs are called, and their seeds."""
    name = re.sub(r"_seed=\d+", "", group[0].title)
    return f"{name} (seed {', '.join(str(run.seed) for run in group)})"


def _tested(
    metrics: Iterable[Key], grouped: Sequence[Sequence[Finished]], name: str, protocol: str
) -> dict[tuple[Key, int], str]:
    """What stands behind the change of each metric and group: its p, also corrected for the number
    of changes in the table, and a mark by that."""
    found = {
        (key, i): p
        for key in metrics
        for i, group in enumerate(grouped)
        if (p := _p(_final(key, group, name, protocol))) is not None
    }
    return {
        cell: f" ({p_value(p)}, Holm {p_value(corrected)}){' *' * (corrected < SIGNIFICANCE)}"
        for (cell, p), corrected in zip(found.items(), holm(list(found.values())), strict=True)
    }


def _p(deltas: Sequence[Json]) -> float | None:
    """The largest p of the seeds, and 1 where they differ in direction: every seed shows it."""
    if len({d["value"] > 0 for d in deltas}) > 1:
        return 1.0
    return max((d["p"] for d in deltas), default=None)


def _final(key: Key, group: Sequence[Finished], name: str, protocol: str) -> list[Json]:
    """The final model's change in each of the group's runs that measured it."""
    wanted = (name, *key[:2], ALIGNED)
    return [
        d
        for run in group
        if any((s["benchmark"], s["protocol"]) == (name, protocol) for s in run.scores)
        for d in run.deltas
        if (d["benchmark"], d["split"], d["metric"], d["model"]) == wanted
    ]


def _cells(key: Key, group: Sequence[Finished], name: str, protocol: str) -> tuple[str, str]:
    """The base's value and the final model's change, over the group's seeds."""

    wanted = (name, protocol, *key[:2], BASE)
    base = [
        s["value"]
        for run in group
        for s in run.scores
        if (s["benchmark"], s["protocol"], s["split"], s["metric"], s["model"]) == wanted
    ]
    if not base:
        return "", ""
    change = [d["value"] for d in _final(key, group, name, protocol)]
    return spread(base), spread(change, signed=True) if change else ""


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m seva_exp.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    runs = []
    for folder in parser.parse_args(words).runs:
        try:
            runs.append(read_run(folder))
        except InputError as error:  # one that is not finished does not hide the others
            print(f"seva_exp: left out: {error}", file=sys.stderr)
    if runs:
        print(tables(runs))
    return 0 if runs else 2


if __name__ == "__main__":
    sys.exit(main())
