"""Intervals cover, paired tests keep their level, and the formulas are the written-out ones."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest

from seva_exp.benchmarks.base import Metric, accuracy
from seva_exp.benchmarks.statistics import GroupSums, deltas, holm, resampling_weights, scores
from seva_exp.records import Prediction

ACCURACY = Metric("all", "accuracy", accuracy, (("t",),))


def metrics(types) -> list[Metric]:
    return [ACCURACY]


NAMES = {"model": "base", "benchmark": "b", "protocol": "p"}


def prediction(group: int, correct: float, kind: str = "t", asked: float = 1.0) -> Prediction:
    counts = {"correct": correct, "asked": asked}
    return Prediction(f"{group}-{kind}", f"{group:05d}", kind, "q", "a", "a", "t", correct, counts)


def bernoulli(seed: int, chance: float, groups: int, per_group: int = 1) -> list[Prediction]:
    rng = random.Random(seed)
    return [
        prediction(g, float(rng.random() < chance)) for g in range(groups) for _ in range(per_group)
    ]


def test_a_ratio_is_the_sum_over_the_sum():
    rows = [prediction(0, 1, asked=1), prediction(0, 0, asked=3), prediction(1, 2, asked=4)]
    assert GroupSums(rows).value(ACCURACY) == pytest.approx(100 * 3 / 8)


def test_a_mean_of_ratios_weighs_types_equally():
    rows = [prediction(0, 1, "a"), prediction(1, 1, "a"), prediction(2, 0, "b")]
    mean = Metric("all", "mean", accuracy, (("a",), ("b",)))
    assert GroupSums(rows).value(mean) == pytest.approx(50)


def test_what_was_never_asked_has_no_score():
    assert scores(metrics, [prediction(0, 1, "other")], **NAMES) == []


def test_the_interval_is_that_of_the_binomial():
    (score,) = scores(metrics, bernoulli(0, 0.7, 1000), **NAMES)
    half = 1.96 * (score.value * (100 - score.value) / 1000) ** 0.5
    assert score.low == pytest.approx(score.value - half, abs=0.4)
    assert score.high == pytest.approx(score.value + half, abs=0.4)
    assert score.n == 1000


def test_questions_on_one_picture_are_not_independent():
    """Ten equal answers a picture say no more than one: the interval must not shrink."""
    rng = random.Random(1)
    one = [prediction(g, float(rng.random() < 0.5)) for g in range(100)]
    ten = [p for p in one for _ in range(10)]
    (narrow,), (wide,) = (scores(metrics, rows, **NAMES) for rows in (one, ten))
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low, rel=1e-9)


def test_intervals_cover_the_truth_in_about_95_of_100_cases():
    covered = 0
    for seed in range(100):
        (score,) = scores(metrics, bernoulli(seed, 0.6, 150), **NAMES)
        covered += score.low <= 60 <= score.high
    assert 88 <= covered <= 100


def test_a_paired_test_keeps_its_level_without_a_difference():
    low = 0
    for seed in range(100):
        base, other = bernoulli(seed, 0.6, 150), bernoulli(1000 + seed, 0.6, 150)
        (delta,) = deltas(metrics, base, other, benchmark="b")
        low += delta.p < 0.05
    assert low <= 12


def test_pairing_finds_a_small_difference_that_single_intervals_do_not():
    base = bernoulli(3, 0.6, 300)
    better = [prediction(i, 1.0) if i % 12 == 0 else p for i, p in enumerate(base)]
    (before,), (after,) = (scores(metrics, rows, **NAMES) for rows in (base, better))
    assert before.high > after.low, "the intervals overlap"
    (delta,) = deltas(metrics, base, better, benchmark="b")
    assert delta.value == pytest.approx(after.value - before.value)
    assert delta.p < 0.01


def test_no_difference_at_all_has_p_1_and_p_is_never_0():
    base = bernoulli(0, 0.5, 50)
    (delta,) = deltas(metrics, base, base, benchmark="b")
    assert (delta.value, delta.low, delta.high, delta.p) == (0, 0, 0, 1)
    worst = [prediction(g, 0) for g in range(50)]
    best = [prediction(g, 1) for g in range(50)]
    (delta,) = deltas(metrics, worst, best, benchmark="b")
    assert 0 < delta.p < 0.002


def test_other_pictures_are_refused():
    with pytest.raises(ValueError, match="different questions"):
        deltas(metrics, bernoulli(0, 1, 5), bernoulli(0, 1, 6), benchmark="b")


def test_resamples_are_the_same_for_every_model_and_sum_to_the_sample():
    weights = resampling_weights(20)
    assert np.array_equal(weights, resampling_weights(20))
    assert (weights.sum(axis=1) == 20).all()
    assert abs(weights.mean() - 1) < 1e-9


def test_sums_are_the_same_to_the_last_bit_in_any_order():
    rng = random.Random(2)
    rows = []
    for i in range(300):
        counts = {"correct": rng.choice((0.1, 0.3, 0.6, 0.9)), "asked": 1.0}
        rows.append(Prediction(f"{i:03d}", str(i % 3), "t", "q", "a", "a", "t", 0.0, counts))
    want = GroupSums(rows).sums(("t",), "correct")
    for _ in range(5):
        rng.shuffle(rows)
        assert np.array_equal(GroupSums(rows).sums(("t",), "correct"), want)


def test_a_group_is_whole_where_each_of_its_answers_has_the_count():
    rows = [
        prediction(0, 1), prediction(0, 1), prediction(1, 1), prediction(1, 0), prediction(2, 1),
        prediction(2, 0, "other"),
    ]  # fmt: skip
    whole = Metric(
        "all", "whole", lambda sums: 100 * sums.whole("correct") / sums.groups(), (("t",),),
        unit="group",
    )  # fmt: skip
    table = GroupSums(rows)
    assert table.value(whole) == pytest.approx(200 / 3), "other types do not count"
    assert table.count(whole) == 3


def test_a_total_adds_its_parts_and_needs_all_of_them():
    rows = [prediction(0, 1, "a"), prediction(1, 0, "b"), prediction(2, 1, "b")]
    parts = (("a",), ("b",))
    total = Metric("all", "sum", accuracy, parts, total=True)
    assert GroupSums(rows).value(total) == pytest.approx(150)
    assert GroupSums(rows[:1]).value(total) is None


def closed_bonferroni(p_values: list[float], i: int) -> float:
    """Holm's p by its meaning: the largest Bonferroni p of all sets of comparisons with ``i``."""
    others = [k for k in range(len(p_values)) if k != i]
    sets = [{i, *rest} for size in range(len(p_values)) for rest in combinations(others, size)]
    return max(min(1.0, len(one) * min(p_values[k] for k in one)) for one in sets)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02, 0.02]) == [0.04, 0.04]
    assert (holm([0.03]), holm([])) == ([0.03], [])


def test_holm_is_the_closed_test_of_bonferroni():
    rng = random.Random(0)
    for _ in range(50):
        p_values = [rng.random() ** 3 for _ in range(rng.randint(1, 7))]
        want = [closed_bonferroni(p_values, i) for i in range(len(p_values))]
        assert holm(p_values) == pytest.approx(want)


def test_holm_keeps_the_chance_of_any_false_finding():
    """Of 20 comparisons without a difference, 64 % of the tables have one with p < 0.05."""
    rng = random.Random(1)
    tables = [[rng.random() for _ in range(20)] for _ in range(1000)]
    assert sum(min(raw) < 0.05 for raw in tables) > 550
    assert sum(min(holm(raw)) < 0.05 for raw in tables) < 80
