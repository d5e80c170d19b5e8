"""Bootstrap intervals and paired tests over groups (pictures), with numpy.

Shape legend: G groups, R resamples, M metrics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seva_exp.benchmarks.base import Metric, Ratio
from seva_exp.randomness import seed_for
from seva_exp.records import Delta, Prediction, Score

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)


def scores(
    metrics: Sequence[Metric],
    predictions: Sequence[Prediction],
    *,
    model: str,
    benchmark: str,
    protocol: str,
) -> list[Score]:
    """Each metric with its 95 % percentile bootstrap interval; pictures are resampled, since the
    questions on one picture are not independent."""
    table = GroupSums(predictions)
    weights = resampling_weights(len(table.groups))
    out = []
    for metric in metrics:
        if (value := table.value(metric)) is None:
            continue
        low, high = np.nanpercentile(table.values(metric, weights), INTERVAL)
        out.append(
            Score(
                model,
                benchmark,
                metric.split,
                metric.name,
                value,
                float(low),
                float(high),
                table.count(metric),
                protocol,
                metric.better,
            )
        )
    return out


def deltas(
    metrics: Sequence[Metric],
    base: Sequence[Prediction],
    aligned: Sequence[Prediction],
    *,
    benchmark: str,
) -> list[Delta]:
    """aligned - base by a paired bootstrap: both models on the same resampled pictures. ``p`` is
    two-sided: twice the share of resamples on the other side of zero, with one added to the count
    and to the total so that it is never 0."""
    if {p.sample_id for p in base} != {p.sample_id for p in aligned}:
        raise ValueError(f"{benchmark}: base and aligned predictions are of different questions")
    before, after = GroupSums(base), GroupSums(aligned)
    weights = resampling_weights(len(before.groups))
    out = []
    for metric in metrics:
        old, new = before.value(metric), after.value(metric)
        if old is None or new is None:
            continue
        change = after.values(metric, weights) - before.values(metric, weights)
        change = change[~np.isnan(change)]
        low, high = np.percentile(change, INTERVAL)
        p = _two_sided(change)
        out.append(
            Delta(
                benchmark,
                metric.split,
                metric.name,
                new - old,
                float(low),
                float(high),
                p,
                metric.better,
            )
        )
    return out


def _two_sided(change: np.ndarray) -> float:
    total = len(change)
    below = int((change <= 0).sum())
    above = int((change >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (total + 1))


def resampling_weights(groups: int) -> np.ndarray:
    """[R, G]: how often each picture is drawn. The same for every model, so that pairs stay."""
    rng = np.random.default_rng(seed_for(0, "bootstrap", str(groups)))
    chances = np.full(groups, 1 / groups)
    return rng.multinomial(groups, chances, size=RESAMPLES).astype(np.float64)


class GroupSums:
    """Sums of every count by picture and question type, so that a resample is a matrix product."""

    def __init__(self, predictions: Sequence[Prediction]) -> None:
        self.groups = sorted({prediction.group for prediction in predictions})
        index = {group: i for i, group in enumerate(self.groups)}
        self._sums: dict[tuple[str, str], np.ndarray] = {}
        self._counts: dict[str, int] = {}
        for prediction in predictions:
            self._counts[prediction.type] = self._counts.get(prediction.type, 0) + 1
            for name, value in prediction.counts.items():
                sums = self._sums.setdefault((prediction.type, name), np.zeros(len(self.groups)))
                sums[index[prediction.group]] += value

    def count(self, metric: Metric) -> int:
        """How many answers the metric rests on."""
        types = {type_ for term in metric.terms for type_ in term.types}
        return sum(self._counts.get(type_, 0) for type_ in types)

    def value(self, metric: Metric) -> float | None:
        """The metric on the sample itself; None when nothing was asked that it needs."""
        value = self.values(metric, np.ones((1, len(self.groups))))[0]
        return None if np.isnan(value) else float(value)

    def values(self, metric: Metric, weights: np.ndarray) -> np.ndarray:
        """[R]: the metric on each resample; NaN where a denominator is 0."""
        return np.mean([self._ratio(term, weights) for term in metric.terms], axis=0)

    def _ratio(self, term: Ratio, weights: np.ndarray) -> np.ndarray:
        above = weights @ self._sum(term.types, term.numerator)
        below = weights @ self._sum(term.types, term.denominator)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(below > 0, term.scale * above / below, np.nan)

    def _sum(self, types: Sequence[str], name: str) -> np.ndarray:
        zeros = np.zeros(len(self.groups))
        return sum((self._sums.get((type_, name), zeros) for type_ in types), zeros)
