"""The bootstrap written out: groups drawn one by one, and the score of what was drawn counted anew
from the single answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from seva_exp.benchmarks.official import Official
from seva_exp.benchmarks.statistics import INTERVAL, resampling_weights, scores
from seva_exp.core.records import Prediction, Score

Value = Callable[[Sequence[Sequence[Prediction]]], float]
"""The score of some groups' answers; a group may stand there several times."""


def interval(predictions: Sequence[Prediction], value: Value) -> tuple[float, float]:
    """95 %, by the same draws as ours."""
    names = sorted({one.group for one in predictions})
    groups = [[one for one in predictions if one.group == name] for name in names]
    found = []
    for weights in resampling_weights(len(groups)):
        drawn = [group for group, w in zip(groups, weights, strict=True) for _ in range(int(w))]
        found.append(value(drawn))
    low, high = np.percentile(found, INTERVAL)
    return float(low), float(high)


def table(benchmark: Official, predictions: Sequence[Prediction]) -> dict[tuple[str, str], Score]:
    """Scores by split and metric."""
    found = scores(benchmark.metrics, predictions, model="m", benchmark="b", protocol="p")
    return {(score.split, score.metric): score for score in found}


def values(benchmark: Official, predictions: Sequence[Prediction]) -> dict[tuple[str, str], float]:
    """To two places."""
    return {name: round(score.value, 2) for name, score in table(benchmark, predictions).items()}


def shuffled(predictions: Sequence[Prediction]) -> list[Prediction]:
    """In another order."""
    return random.Random(7).sample(predictions, len(predictions))
