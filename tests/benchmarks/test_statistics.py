"""Intervals cover, paired tests keep their level, and the formulas are the written-out ones."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import combinations
from math import erfc
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from seva_exp.benchmarks.base import Metric, accuracy, ratio
from seva_exp.benchmarks.pope import f1, precision, scored
from seva_exp.benchmarks.statistics import (
    GroupSums,
    deltas,
    groups_needed,
    holm,
    mcnemar,
    resampling_weights,
    scores,
)
from seva_exp.core.records import Prediction, write_jsonl

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


def test_p_goes_below_what_resamples_resolve_and_not_below_what_pairs_do():
    """2,000 resamples stop at 0.001: 50 corrected comparisons would never show anything."""
    before = [prediction(g, float(g % 4 == 0)) for g in range(400)]
    after = [prediction(g, float(g % 4 == 0 or g % 5 == 0)) for g in range(400)]
    (delta,) = deltas(metrics, before, after, benchmark="b")
    z = 15 / (100 * (0.15 * 0.85 / 400) ** 0.5)
    tails = [erfc(share * z / 2**0.5) for share in (1.2, 1 / 1.2)]
    assert 0 < tails[0] < delta.p < tails[1] < 1e-10
    few = [prediction(g, 0) for g in range(4)], [prediction(g, 1) for g in range(4)]
    (delta,) = deltas(metrics, *few, benchmark="b")
    assert delta.p == 1 / 8, "four coins fall on one side in one of eight cases"


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


def test_mcnemar_by_hand_and_by_the_binomial():
    assert mcnemar(1, 6) == 2 * (1 + 7) / 128
    assert mcnemar(0, 6) == 2 / 64
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1
    for lost, won in [(3, 9), (40, 61), (900, 1000), (5000, 5200)]:
        want = binomtest(lost, lost + won).pvalue
        assert mcnemar(lost, won) == mcnemar(won, lost) == pytest.approx(want, rel=1e-9)


def test_mcnemar_never_exceeds_its_level():
    for pairs in range(1, 80):
        lost = range(pairs + 1)
        false = [binom.pmf(k, pairs, 0.5) for k in lost if mcnemar(k, pairs - k) < 0.05]
        assert sum(false) <= 0.05


def counted(group: int, counts: dict[str, float], number: str = "") -> Prediction:
    return Prediction(f"{group}-{number}", str(group), "t", "q", "a", "a", "t", 0.0, counts)


def mcnemar_of(metric: Metric, before: list[Prediction], after: list[Prediction]) -> float | None:
    (delta,) = deltas(lambda types: [metric], before, after, benchmark="b")
    return delta.mcnemar_p


def test_mcnemar_counts_pictures_that_turned():
    """9 of 40 pictures fixed, 2 broken; the others stay as they are."""
    before = [prediction(g, float(g >= 20)) for g in range(40)]
    after = [prediction(g, float(g < 9 or g >= 22)) for g in range(40)]
    assert mcnemar_of(ACCURACY, before, after) == mcnemar(2, 9)
    wrong = Metric("all", "wrong", ratio("wrong"), (("t",),), "lower")
    turned = [
        [counted(g, {"wrong": 1 - p.score, "asked": 1.0}) for g, p in enumerate(rows)]
        for rows in (before, after)
    ]
    assert mcnemar_of(wrong, *turned) == mcnemar(2, 9), "any share, in either direction"


def test_mcnemar_is_left_out_where_it_would_not_hold():
    before, after = bernoulli(1, 0.5, 60), bernoulli(2, 0.7, 60)
    assert mcnemar_of(ACCURACY, before, after) is not None
    shared = [[p for p in rows for _ in range(2)] for rows in (before, after)]
    assert mcnemar_of(ACCURACY, *shared) is None, "two questions on a picture depend on each other"
    graded = [prediction(g, 0.3 * (g % 4)) for g in range(60)]
    assert mcnemar_of(ACCURACY, before, graded) is None, "not right or wrong"
    weighted = [prediction(g, float(g % 2), asked=1.0 + g % 2) for g in range(60)]
    assert mcnemar_of(ACCURACY, weighted, weighted) is None, "not a share of answers"
    mean = Metric("all", "mean", accuracy, (("t",), ("u",)))
    two = [[*rows, *(prediction(g + 60, p.score, "u") for g, p in enumerate(rows))]
           for rows in (before, after)]  # fmt: skip
    assert mcnemar_of(mean, *two) is None, "a mean of two shares"


def test_mcnemar_of_precision_and_f1_is_left_out():
    def asked(seed: int, targets: tuple[str, ...]) -> list[Prediction]:
        rng = random.Random(seed)
        rows = [(g, rng.choice(("yes", "no")), targets[g % len(targets)]) for g in range(60)]
        return [counted(g, scored(str, said, target, {}).counts) for g, said, target in rows]

    for formula in (precision, f1):
        metric = Metric("all", "m", formula, (("t",),))
        assert mcnemar_of(metric, asked(1, ("yes", "no")), asked(2, ("yes", "no"))) is None
    only = asked(1, ("yes",)), asked(2, ("yes",))
    assert mcnemar_of(metric, *only) is None, "0 or 100 each, but F1 is not their mean"
    assert mcnemar_of(Metric("all", "recall", accuracy, (("t",),)), *only) is not None


def test_mcnemar_of_circular_scores_counts_questions():
    """A question is right where both of its rotations are."""
    whole = Metric(
        "all", "whole", lambda sums: 100 * sums.whole("correct") / sums.groups(), (("t",),),
        unit="group",
    )  # fmt: skip

    def rotated(right: int) -> list[Prediction]:
        return [
            counted(g, {"correct": float(k == 0 or g < right)}, str(k))
            for g in range(30)
            for k in range(2)
        ]

    assert mcnemar_of(whole, rotated(10), rotated(17)) == mcnemar(0, 7)


def test_groups_needed_by_hand():
    """Of 400 pictures 48 fixed and 28 broken: 5 points, with a variance by picture of
    100 ** 2 * (0.19 - 0.05 ** 2)."""
    before = [prediction(g, float(g < 28)) for g in range(400)]
    after = [prediction(g, float(28 <= g < 76)) for g in range(400)]
    (delta,) = deltas(metrics, before, after, benchmark="b")
    reach = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    want = reach**2 * (0.19 - 0.05**2) / 0.05**2  # 589
    assert delta.groups == 400
    assert delta.groups_needed == pytest.approx(want, rel=0.08)
    assert groups_needed(5.0, 2.5, 400) == groups_needed(-5.0, 2.5, 400) == 785
    assert groups_needed(0.0, 2.5, 400) is None


def test_so_many_groups_find_such_a_change_four_times_out_of_five():
    needed = groups_needed(5.0, 100 * ((0.19 - 0.05**2) / 400) ** 0.5, 400)
    assert needed is not None
    rng = np.random.default_rng(0)
    change = rng.choice([1, -1, 0], p=[0.12, 0.07, 0.81], size=(2000, needed))
    z = change.mean(axis=1) / (change.std(axis=1) / needed**0.5)
    assert 0.77 < (np.abs(z) > NormalDist().inv_cdf(0.975)).mean() < 0.83


def test_a_change_that_is_not_significant_needs_about_twice_the_groups_at_least():
    for seed in range(8):
        rows = bernoulli(seed, 0.6, 200), bernoulli(1000 + seed, 0.6, 200)
        (delta,) = deltas(metrics, *rows, benchmark="b")
        if delta.p > 0.06 and delta.groups_needed is not None:
            assert delta.groups_needed > 1.8 * delta.groups


RESCORED = """
import json, random, sys
from pathlib import Path
from seva_exp.benchmarks.pope import PopeBenchmark
from seva_exp.benchmarks.statistics import deltas, scores
from seva_exp.core.records import Prediction, read_jsonl, to_line
base, aligned = (list(read_jsonl(Path(file), Prediction)) for file in sys.argv[1:3])
random.Random(int(sys.argv[3])).shuffle(base)
random.Random(int(sys.argv[3]) + 1).shuffle(aligned)
metrics = PopeBenchmark().metrics
found = scores(metrics, base, model="m", benchmark="pope", protocol="p")
found += deltas(metrics, base, aligned, benchmark="pope")
print("".join(map(to_line, found)), hash("x") % 1000, file=sys.stdout)
"""


def test_fixed_predictions_give_the_same_scores_in_any_process_and_order(tmp_path):
    """Byte for byte, whatever the order of the rows and of Python's sets."""
    for seed, name in enumerate(("base", "aligned")):
        rng, rows = random.Random(seed), []
        for i in range(600):
            split, target = ("random", "popular", "adversarial")[i % 3], rng.choice(("yes", "no"))
            found = scored(str, rng.choice((target, "yes", "no", "")), target, {})
            rows.append(
                Prediction(
                    f"{split}-{i}", str(i // 6), split, "q", "a", "a", target, found.score,
                    found.counts,
                )
            )  # fmt: skip
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    said, hashes = set(), set()
    for number in range(2):
        command = [sys.executable, "-c", RESCORED]
        files = [str(tmp_path / f"{name}.jsonl") for name in ("base", "aligned")]
        environment = os.environ | {"PYTHONHASHSEED": str(number)}
        done = subprocess.run(
            [*command, *files, str(number)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        said.add("\n".join(lines[:-1]))
        hashes.add(lines[-1])
    assert len(hashes) == 2, "Python hashed otherwise each time"
    assert len(said) == 1
    assert len(said.pop().splitlines()) == 36, "18 scores, 18 changes"


@pytest.mark.parametrize(("end", "limits"), [(1.0, (73.535, 100.0)), (0.0, (0.0, 26.465))])
def test_resamples_that_cannot_differ_are_no_certainty(end, limits):
    """Clopper and Pearson's interval (scipy's) of 12 out of 12 and of none out of 12; a length in
    words has no end to be at."""
    rows = [prediction(group, end, asked=1) for group in range(12)]
    exact = binomtest(int(12 * end), 12).proportion_ci(method="exact")
    words = Metric("all", "words", ratio("correct", scale=1.0), (("t",),), share=False)
    share, length = scores(lambda types: [ACCURACY, words], rows, **NAMES)
    assert (share.low, share.high) == pytest.approx((100 * exact.low, 100 * exact.high))
    assert (share.low, share.high) == pytest.approx(limits, abs=1e-3)
    assert (length.low, length.high) == (end, end)


def test_an_end_is_as_certain_as_the_pictures_that_could_leave_it():
    """A precision of 100 from the two pictures of twenty on which the model says yes at all."""
    rows = [prediction(g, 1.0, "t", asked=1) for g in (0, 1)]
    rows += [prediction(g, 0.0, "t", asked=0) for g in range(2, 20)]
    (score,) = scores(metrics, rows, **NAMES)
    assert (score.low, score.high) == pytest.approx((100 * 0.025**0.5, 100))
