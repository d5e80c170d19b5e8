"""A run's main scores, for a list: of each benchmark's parts the first metric with a direction."""

from __future__ import annotations

from dataclasses import dataclass

from seva_exp.benchmarks.guards import is_gain, is_significant
from seva_exp.core.records import ALIGNED, BASE, Report
from seva_exp.core.spec import Json


@dataclass(frozen=True)
class MainScore:
    """One metric of the final model: its value, and its change from the base with ``verdict``:
    ``better``, ``worse`` or ``not significant``; None and empty where nothing was compared."""

    benchmark: str
    split: str
    metric: str
    value: float
    change: float | None = None
    verdict: str = ""
    better: str = "higher"

    @property
    def text(self) -> str:
        """``accuracy +1.2*``: a star for what is significant; a value where there is no change."""
        alone = self.split in ("", "all") or self.metric.startswith(self.split)
        name = self.metric if alone else f"{self.split} {self.metric}"
        if self.change is None:
            return f"{name} {self.value:.1f}"
        return f"{name} {self.change:+z.1f}" + "*" * (self.verdict != "not significant")

    def to_json(self) -> Json:
        return dict(vars(self))


def main_scores(report: Report) -> list[MainScore]:
    """The first metric of each benchmark and part (``pope_random`` is of the part ``pope``); where
    nothing was aligned, the model's own."""
    there = {score.model for score in report.scores}
    model = next((name for name in (ALIGNED, BASE) if name in there), "")
    changes = {(d.benchmark, d.split, d.metric): d for d in report.final_deltas}
    found: dict[tuple[str, str], MainScore] = {}
    for score in report.scores:
        part = (score.benchmark, score.split.partition("_")[0])
        if score.model != model or score.better not in ("higher", "lower") or part in found:
            continue
        about = (score.benchmark, score.split, score.metric)
        delta = changes.get(about)
        if delta is None:
            found[part] = MainScore(*about, score.value, better=score.better)
            continue
        verdict = "better" if is_gain(delta) else "worse"
        verdict = verdict if is_significant(delta) else "not significant"
        found[part] = MainScore(*about, score.value, delta.value, verdict, score.better)
    return list(found.values())
