"""Bootstrap intervals and paired tests over groups (pictures), with numpy.

Shape legend: G groups, R resamples, M metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from seva_exp.benchmarks.base import OF, RIGHT, Metric
from seva_exp.core.randomness import seed_for
from seva_exp.core.records import Delta, Prediction, Score

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
LEVEL, POWER = 0.05, 0.8
"""Two-sided level and power for which ``groups_needed`` asks."""


Metrics = Callable[[Sequence[str]], Sequence[Metric]]
"""The metrics of predictions of some types."""


def scores(
    metrics: Metrics,
    predictions: Sequence[Prediction],
    *,
    model: str,
    benchmark: str,
    protocol: str,
) -> list[Score]:
    """Each metric with its 95 % interval (``GroupSums.interval``); pictures are resampled, since
    the questions on one picture are not independent."""
    table = GroupSums(predictions)
    weights = resampling_weights(len(table.groups))
    out = []
    for metric in metrics(table.types):
        if (value := table.value(metric)) is None:
            continue
        low, high = table.interval(metric, weights)
        out.append(
            Score(
                model,
                benchmark,
                metric.split,
                metric.name,
                _rounded(value),
                _rounded(low),
                _rounded(high),
                table.count(metric),
                protocol,
                metric.better,
            )
        )
    return out


def deltas(
    metrics: Metrics,
    base: Sequence[Prediction],
    aligned: Sequence[Prediction],
    *,
    benchmark: str,
) -> list[Delta]:
    """aligned - base by a paired bootstrap: both models on the same resampled pictures."""
    if {p.sample_id for p in base} != {p.sample_id for p in aligned}:
        raise ValueError(f"{benchmark}: base and aligned predictions are of different questions")
    before, after = GroupSums(base), GroupSums(aligned)
    weights = resampling_weights(len(before.groups))
    out = []
    for metric in metrics(before.types):
        old, new = before.value(metric), after.value(metric)
        if old is None or new is None:
            continue
        change = after.values(metric, weights) - before.values(metric, weights)
        change = change[~np.isnan(change)]
        low, high = np.percentile(change, INTERVAL)
        groups = before.group_count(metric)
        pairs = right_or_wrong(metric, before, after)
        out.append(
            Delta(
                benchmark,
                metric.split,
                metric.name,
                _rounded(new - old),
                _rounded(low),
                _rounded(high),
                _two_sided(change, new - old, groups),
                metric.better,
                groups=groups,
                groups_needed=groups_needed(new - old, float(np.std(change)), groups),
                mcnemar_p=mcnemar(*pairs) if pairs else None,
            )
        )
    return out


def _rounded(value: float) -> float:
    """Without the last bits, in which a matrix product on two machines may differ."""
    return round(float(value), 9)


def _two_sided(resampled: np.ndarray, change: float, groups: int) -> float:
    """Twice the share of resamples on the other side of zero, with one added to the count and to
    the total. Where none is there, the resamples resolve no smaller p: then the normal tail with
    their standard deviation. Never below 2 ** (1 - groups), which is what it takes for pairs to
    differ in one direction by chance."""
    other = int(min((resampled <= 0).sum(), (resampled >= 0).sum()))
    p = 2 * (other + 1) / (len(resampled) + 1)
    if other == 0:
        error = float(np.std(resampled))
        tail = math.erfc(abs(change) / error / math.sqrt(2)) if error else 0.0
        p = min(p, float(f"{tail:.3g}"))
    return min(1.0, max(p, 2.0 ** (1 - min(groups, 1000))))


def groups_needed(change: float, error: float, groups: int) -> int | None:
    """The number of groups that would show a change of this size with a power of 80 % at the
    two-sided level of 5 %: ``groups * ((z_0.975 + z_0.8) * error / change) ** 2``, where ``error``
    is the change's standard error on ``groups`` groups (of the paired bootstrap: the variance by
    group is ``groups * error ** 2``). None where nothing changed: no number would do."""
    if _rounded(change) == 0:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
    return max(2, math.ceil(round(groups * (reach * error / change) ** 2, 6)))


def mcnemar(lost: int, won: int) -> float:
    """McNemar's exact two-sided p: of the ``lost + won`` pairs in which just one of two models is
    right, as many are of either kind but for chance (binomial, 1/2). It assumes that the pairs are
    independent of each other."""
    pairs, term, total = lost + won, 1, 1
    for k in range(1, min(lost, won) + 1):
        term = term * (pairs - k + 1) // k
        total += term
    return min(1.0, 2 * total / 2**pairs)


def right_or_wrong(metric: Metric, before: GroupSums, after: GroupSums) -> tuple[int, int] | None:
    """How many units turned from 100 to 0, and from 0 to 100; None unless the metric is the
    percentage of units that count, and each unit is a group of its own: one answer, or (circular)
    the group itself. Where several questions share a picture, they are not independent."""
    if metric.unit != "group" and before.group_count(metric) < before.count(metric):
        return None
    old, new = before.each(metric), after.each(metric)
    for table, units in ((before, old), (after, new)):
        whole = table.value(metric)
        if not np.isin(units, (0, 100)).all() or not np.isclose(np.mean(units), whole or 0):
            return None
    return int((old > new).sum()), int((new > old).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of each of several comparisons corrected for their number, in the order given: the
    chance of any false finding among all of them stays below the level, however they depend on
    each other (Holm 1979, Scand. J. Statist. 6:65-70). The k-th smallest of m is multiplied by
    m - k + 1; none falls below a smaller one's."""
    corrected, least = [1.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = least
    return corrected


def resampling_weights(groups: int) -> np.ndarray:
    """[R, G]: how often each picture is drawn. The same for every model, so that pairs stay."""
    rng = np.random.default_rng(seed_for(0, "bootstrap", str(groups)))
    chances = np.full(groups, 1 / groups)
    return rng.multinomial(groups, chances, size=RESAMPLES).astype(np.float64)


class GroupSums:
    """Counts by picture and question type, so that a resample is a matrix product. Sums do not
    depend on the predictions' order."""

    def __init__(self, predictions: Sequence[Prediction]) -> None:
        self.groups = sorted({prediction.group for prediction in predictions})
        index = {group: i for i, group in enumerate(self.groups)}
        self._sums: dict[tuple[str, str], np.ndarray] = {}
        self._answers: dict[str, np.ndarray] = {}
        zeros = np.zeros(len(self.groups))
        for prediction in sorted(predictions, key=lambda prediction: prediction.sample_id):
            at = index[prediction.group]
            self._answers.setdefault(prediction.type, zeros.copy())[at] += 1
            for name, value in prediction.counts.items():
                self._sums.setdefault((prediction.type, name), zeros.copy())[at] += value

    @property
    def types(self) -> list[str]:
        """The question types that there are answers to."""
        return sorted(self._answers)

    def count(self, metric: Metric) -> int:
        """The number of answers (groups, sub-groups) that the metric rests on."""
        if metric.unit == "group":
            return self.group_count(metric)
        types = {type_ for part in metric.parts for type_ in part}
        if metric.unit == "answer":
            return int(self.answers(types).sum())
        return int(self.subgroups(types, metric.unit)[0].sum())

    def group_count(self, metric: Metric) -> int:
        """The number of groups with an answer that the metric rests on."""
        return int(self._has_answers(metric).sum())

    def each(self, metric: Metric) -> np.ndarray:
        """The formula on each group alone that has an answer it rests on (NaN where it is 0 / 0,
        whatever ``Metric.empty``)."""
        return self.values(replace(metric, empty=None), _Alone())[self._has_answers(metric)]

    def _has_answers(self, metric: Metric) -> np.ndarray:
        return self.answers({type_ for part in metric.parts for type_ in part}) > 0

    def value(self, metric: Metric) -> float | None:
        """The metric on the sample itself; None when nothing was asked that it needs."""
        value = self.values(metric, np.ones((1, len(self.groups))))[0]
        return None if np.isnan(value) else float(value)

    def interval(self, metric: Metric, weights: np.ndarray) -> tuple[float, float]:
        """Percentile bootstrap. Where every group is at the same end of a share, resamples cannot
        differ; that does not make it certain: the other end is Clopper and Pearson's for as many
        groups out of as many; with no group that would tell, all that a share can be."""
        low, high = np.nanpercentile(self.values(metric, weights), INTERVAL)
        if metric.share and low == high and high in (0, 100):
            if not (informed := self.informed(metric)):
                return 0.0, 100.0
            reach = 100 * (INTERVAL[0] / 100) ** (1 / informed)
            return (reach, 100.0) if high else (0.0, 100 - reach)
        return float(low), float(high)

    def informed(self, metric: Metric) -> int:
        """The number of groups that give a part of the metric a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            alone = [metric.formula(_Part(self, part, _Alone())) for part in metric.parts]
        return int(np.isfinite(alone).any(axis=0).sum())

    def values(self, metric: Metric, weights: np.ndarray | _Alone) -> np.ndarray:
        """[R]: the metric on each resample; NaN where a denominator is 0, unless the metric has a
        value for that."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found = [metric.formula(_Part(self, part, weights)) for part in metric.parts]
        if metric.empty is not None:
            answered = [weights @ self.answers(part) > 0 for part in metric.parts]
            found = [
                np.where(np.isnan(value) & some, metric.empty, value)
                for value, some in zip(found, answered, strict=True)
            ]
        return np.sum(found, axis=0) / (1 if metric.total else len(found))

    def answers(self, types: Iterable[str]) -> np.ndarray:
        """[G]: how many answers of these types each group has."""
        zeros = np.zeros(len(self.groups))
        return sum((self._answers.get(type_, zeros) for type_ in sorted(types)), zeros)

    def sums(self, types: Iterable[str], name: str) -> np.ndarray:
        """[G]: the sum of a count over each group's answers of these types."""
        zeros = np.zeros(len(self.groups))
        return sum((self._sums.get((type_, name), zeros) for type_ in sorted(types)), zeros)

    def subgroups(self, types: Iterable[str], kind: str) -> tuple[np.ndarray, np.ndarray]:
        """[G] twice: how many sub-groups of a kind with answers of these types each group has, and
        how many of them are right throughout."""
        here = set(types)
        names = {name for type_, name in self._sums if type_ in here}
        asked = {name for name in names if name.startswith(kind + OF) and not name.endswith(RIGHT)}
        found = whole = np.zeros(len(self.groups))
        for name in sorted(asked):
            answers = self.sums(here, name)
            found = found + (answers > 0)
            whole = whole + ((answers > 0) & (self.sums(here, name + RIGHT) == answers))
        return found, whole


class _Alone:
    """The weights of resamples that hold one group each: [G, G] ones on the diagonal, which a
    product need not write out."""

    def __matmul__(self, counts: np.ndarray) -> np.ndarray:
        return counts


@dataclass(frozen=True)
class _Part:
    """The ``Totals`` of the answers of some types."""

    table: GroupSums
    types: tuple[str, ...]
    weights: np.ndarray | _Alone

    def __call__(self, count: str) -> np.ndarray:
        return self.weights @ self.table.sums(self.types, count)

    def whole(self, count: str) -> np.ndarray:
        answers = self.table.answers(self.types)
        whole = (answers > 0) & (self.table.sums(self.types, count) == answers)
        return self.weights @ whole.astype(np.float64)

    def groups(self) -> np.ndarray:
        return self.weights @ (self.table.answers(self.types) > 0).astype(np.float64)

    def subgroups(self, kind: str) -> np.ndarray:
        return self.weights @ self.table.subgroups(self.types, kind)[0]

    def whole_subgroups(self, kind: str) -> np.ndarray:
        return self.weights @ self.table.subgroups(self.types, kind)[1]
