"""python perf/pair_truth.py RUN...: what is true of the descriptions that were preferred

Of each finished run with data=shapes: over the pairs whose question asks for a description, the
means of objects made up, objects named and words, of the chosen and of the first rejected answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from seva_exp.benchmarks.shapes import describe_counts
from seva_exp.core.records import Pair
from seva_exp.data import ShapesData
from seva_exp.runs.reader import FinishedRun
from seva_exp.world.language import PLAIN_PROMPTS

COUNTS = {"wrong": "made up", "mentions": "named", "words": "words"}


def compared(run: FinishedRun) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """The counts of both answers, a pair after the other."""
    data = {name: value for name, value in run.config["data"].items() if name != "kind"}
    source = ShapesData(**data)
    for pair in run.pairs():
        if pair.prompt in PLAIN_PROMPTS:
            truth = source.truth(run.report.seed, pair.sample_id)
            yield _counts(pair, truth)


def _counts(pair: Pair, truth: str) -> tuple[dict[str, float], dict[str, float]]:
    chosen, rejected = (describe_counts(truth, text) for text in (pair.chosen, pair.rejected[0]))
    return chosen.counts, rejected.counts


def main(folders: list[str]) -> None:
    """A line a run: chosen | rejected."""
    for folder in folders:
        run = FinishedRun.read(Path(folder))
        found = list(compared(run))
        means = [
            f"{name} {fmean(c[key] for c, _ in found):.2f} | {fmean(r[key] for _, r in found):.2f}"
            for key, name in COUNTS.items()
            if found
        ]
        print(f"{run.report.name}: {len(found)} pairs; {', '.join(means)}")


if __name__ == "__main__":
    main(sys.argv[1:])
