"""Finished runs side by side: `python -m seva_exp.compare runs/*_stic* runs/*_moco*`.

Runs that differ in their seed (and name) only form a group: its change is the mean over seeds with
its standard deviation. The spread over seeds leaves out the benchmark's own sampling error, which
each run's report gives as an interval.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seva_exp.errors import InputError
from seva_exp.records import ALIGNED, BASE
from seva_exp.report.verdict import arrow, label
from seva_exp.spec import Json, canonical

APART = ("seed", "name", "machine", "dry_run", "stop_after", "force")
"""Fields of a run's config that do not make it another variant."""


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
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: holds no finished run ({error}).") from None
    variant = canonical({k: v for k, v in config.items() if k not in APART})
    scores, deltas = tuple(report["scores"]), tuple(report["deltas"])
    return Finished(report["name"], report["seed"], variant, scores, deltas)


def groups(runs: Sequence[Finished]) -> list[list[Finished]]:
    """Runs of one variant together, a seed once (the last run of it), by seed."""
    found: dict[str, dict[int, Finished]] = {}
    for run in runs:
        found.setdefault(run.variant, {})[run.seed] = run
    return [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in found.values()]


def spread(values: Sequence[float], signed: bool = False) -> str:
    """The mean, and the standard deviation over seeds where there are several."""
    sign = "+" if signed else ""
    mean = f"{statistics.fmean(values):{sign}.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def tables(runs: Sequence[Finished]) -> str:
    """Markdown: one table per benchmark and protocol, a row a metric, a column pair a group."""
    grouped = groups(runs)
    scored = [score for run in runs for score in run.scores]
    out = []
    for name, protocol in dict.fromkeys((s["benchmark"], s["protocol"]) for s in scored):
        mine = [s for s in scored if (s["benchmark"], s["protocol"]) == (name, protocol)]
        metrics = dict.fromkeys((s["split"], s["metric"], s["better"]) for s in mine)
        seeds = [", ".join(str(run.seed) for run in group) for group in grouped]
        head = ["metric"]
        for group, of in zip(grouped, seeds, strict=True):
            head += ["base", f"{group[0].title} (seed {of})"]
        rows = [_row(key, grouped, name, protocol) for key in metrics]
        lines = [head, ["---"] * len(head), *rows]
        out.append(f"{name} ({protocol})\n\n" + "\n".join(f"| {' | '.join(x)} |" for x in lines))
    return "\n\n".join(out)


def _row(
    key: tuple[str, str, str], grouped: Sequence[Sequence[Finished]], name: str, protocol: str
) -> list[str]:
    split, metric, better = key

    def of(row: Json, model: str) -> bool:
        return (row["benchmark"], row["split"], row["metric"], row["model"]) == (
            name, split, metric, model,
        )  # fmt: skip

    cells = [f"{label(split, metric)} {arrow(better)}".strip()]
    for group in grouped:
        base = [
            s["value"]
            for run in group
            for s in run.scores
            if of(s, BASE) and s["protocol"] == protocol
        ]
        change = [d["value"] for run in group if base for d in run.deltas if of(d, ALIGNED)]
        cells += [spread(base) if base else "", spread(change, signed=True) if change else ""]
    return cells


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m seva_exp.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    try:
        print(tables([read_run(folder) for folder in parser.parse_args(words).runs]))
    except InputError as error:
        print(f"seva_exp: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
