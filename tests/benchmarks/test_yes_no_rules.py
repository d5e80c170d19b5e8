"""POPE and MME: how answers are read, by hand-worked cases, and what tables come of counts."""

from __future__ import annotations

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.mme import COGNITION, PERCEPTION
from seva_exp.benchmarks.statistics import scores
from seva_exp.benchmarks.yes_no import (
    beginning,
    beginning_or_initial,
    exact,
    first_sentence,
    one_of_both,
)
from seva_exp.records import Prediction

POPE = [  # what was said; POPE's own rule; lmms-eval's; VLMEvalKit's
    ("Yes", "yes", "yes", "yes"),
    ("No", "no", "no", "no"),
    ("yes", "yes", "yes", "yes"),
    ("no", "no", "no", "no"),
    ("NO", "yes", "no", "no"),  # only No, not, no are words of the official rule
    ("YES", "yes", "yes", "yes"),
    ("", "yes", "", ""),
    ("No.", "no", "", "no"),
    ("Yes.", "yes", "", "yes"),
    ("No</s>", "yes", "", "no"),
    (" no\n", "no", "no", "no"),
    ("No, there is no dog.", "no", "", "no"),
    ("Yes, there is a dog.", "yes", "", "yes"),
    ("not sure, yes", "no", "", "yes"),
    ("There is a dog. No, wait.", "yes", "", "no"),  # only the first sentence counts
    ("There is not a dog in the image.", "no", "", ""),
    ("There isn't a dog.", "yes", "", ""),
    ("Nothing is there", "yes", "", ""),
    ("The answer is no", "no", "", "no"),
    ("The answer is No,", "no", "", "no"),
    ("yes and no", "no", "", ""),
    ("(no)", "yes", "", "no"),
    ("No!", "yes", "", "no"),
    ("I know", "yes", "", ""),
    ("B", "yes", "", ""),
    ("不是", "yes", "", ""),
    ("no。", "yes", "", ""),
    ("1.5 dogs, no", "yes", "", "no"),
    ("answer:no", "yes", "", ""),
    ("No,", "no", "", "no"),
]


@pytest.mark.parametrize(("text", "official", "lmms", "kit"), POPE)
def test_pope_reads_an_answer_by_each_harness_rule(text, official, lmms, kit):
    assert (first_sentence(text), exact(text), one_of_both(text)) == (official, lmms, kit)


MME = [
    ("Yes", "yes"), ("No", "no"), ("yes", "yes"), ("no", "no"), ("YES", "yes"), ("NO", "no"),
    ("Yes.", "yes"), ("No.", "no"), ("No</s>", "no"), ("Yes, it is.", "yes"), ("No, not", "no"),
    ("", ""), ("not sure, yes", "no"), ("nothing", "no"), ("The answer is yes", ""),
    (" yes", "yes"),
    ("\nno", "no"), ("(yes)", "yes"), ("(no)", "no"), ("I'd say no", ""), ("A: no", ""),
    ("A no", "no"), ("know", "no"), ("B", ""), ("(B)", ""), ("two", ""), ("否。", ""), ("ye", ""),
    ("eyes", "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MME)
def test_mme_reads_the_first_four_characters(text, said):
    assert beginning(text) == said
    assert beginning_or_initial(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("y", "yes"),
        ("N.", "no"),
        ("n ", "no"),
        ("a.no", "no"),
        ("a..no", "no"),
        ("x", ""),
        (".", ""),
    ],
)
def test_lmms_evals_mme_drops_full_stops_and_knows_initials(text, said):
    assert beginning_or_initial(text) == said


def asked(kind: str, rows: list[tuple[str, str, str, str]], **fields) -> list[Prediction]:
    """Predictions of (group, type, target, what was said) rows."""
    rule = OFFICIAL[kind].rules[{"pope": "first_sentence", "mme": "beginning"}[kind]]
    found = []
    for number, (group, type_, target, text) in enumerate(rows):
        scored = rule(text, target, {})
        found.append(
            Prediction(
                str(number), group, type_, "", text, scored.extracted, target, scored.score,
                scored.counts,
            )
        )  # fmt: skip
    return found


def table(kind: str, predictions: list[Prediction]) -> dict[tuple[str, str], float]:
    benchmark = OFFICIAL[kind](kind=kind)
    found = scores(benchmark.metrics, predictions, model="m", benchmark=kind, protocol="p")
    return {(score.split, score.metric): round(score.value, 2) for score in found}


SEVA_800 = {  # tp, fp of SeVa-7B's released predictions, step 800; 1500 yes and 1500 no each
    "random": (1287, 96),
    "popular": (1287, 171),
    "adversarial": (1287, 294),
}


def test_the_released_predictions_of_seva_give_its_table():
    rows = []
    for split, (tp, fp) in SEVA_800.items():
        answers = [("yes", "Yes, it is.")] * tp + [("yes", "No, it isn't.")] * (1500 - tp)
        answers += [("no", "Yes")] * fp + [("no", "There is no such thing.")] * (1500 - fp)
        rows += [(str(i % 500), split, target, text) for i, (target, text) in enumerate(answers)]
    found = table("pope", asked("pope", rows))
    per_split = ("accuracy", "precision", "f1", "yes_rate")
    assert [found["random", m] for m in per_split] == [89.70, 93.06, 89.28, 46.10]
    assert [found["popular", m] for m in per_split] == [87.20, 88.27, 87.02, 48.60]
    assert [found["adversarial", m] for m in per_split] == [83.10, 81.40, 83.54, 52.70]
    assert (found["mean", "accuracy"], found["mean", "f1"]) == (86.67, 86.61)
    assert found["random", "recall"] == 85.80


def test_an_answer_that_is_neither_misses_a_yes_and_is_no_false_alarm():
    rule = OFFICIAL["pope"].rules["exact"]
    kept = ("correct", "yes", "tp", "fp", "fn", "unparsed")
    found = {
        (target, text): [rule(text, target, {}).counts[name] for name in kept]
        for target in ("yes", "no")
        for text in ("yes", "no", "Perhaps")
    }
    assert found == {
        ("yes", "yes"): [1, 1, 1, 0, 0, 0],
        ("yes", "no"): [0, 0, 0, 0, 1, 0],
        ("yes", "Perhaps"): [0, 0, 0, 0, 1, 1],
        ("no", "yes"): [0, 1, 0, 1, 0, 0],
        ("no", "no"): [1, 0, 0, 0, 0, 0],
        ("no", "Perhaps"): [0, 0, 0, 0, 0, 1],
    }


def test_a_model_that_never_says_yes_has_no_precision():
    found = table(
        "pope", asked("pope", [("a", "random", "yes", "no"), ("b", "random", "no", "no")])
    )
    assert ("random", "precision") not in found
    assert found["random", "f1"] == 0
    assert found["random", "recall"] == 0


def test_mme_adds_accuracy_and_accuracy_plus():
    """Two pictures, three of four answers right, one picture wholly: 75 + 50."""
    rows = [
        ("a", "color", "yes", "Yes"), ("a", "color", "no", "No"),
        ("b", "color", "yes", "Yes"), ("b", "color", "no", "Perhaps"),
    ]  # fmt: skip
    found = table("mme", asked("mme", rows))
    assert found == {("color", "score"): 125.0}, "no sum without all of its categories"


def test_mme_sums_ten_and_four_categories():
    rows = [
        (f"{name}-{i}", name, target, "yes" if name == "OCR" else target)
        for name in (*PERCEPTION, *COGNITION)
        for i in range(3)
        for target in ("yes", "no")
    ]
    found = table("mme", asked("mme", rows))
    assert found["OCR", "score"] == 50
    assert found["perception", "score"] == 9 * 200 + 50
    assert found["cognition", "score"] == 800


def test_the_interval_of_a_metric_that_is_no_ratio_of_sums_resamples_groups():
    """accuracy+ of single pictures is 0 or 100; its interval over 100 pictures is a binomial's."""
    rows = [
        (f"{i:03d}", "color", target, "yes" if i < 40 else target)
        for i in range(100)
        for target in ("yes", "no")
    ]
    benchmark = OFFICIAL["mme"](kind="mme")
    (score,) = scores(
        benchmark.metrics, asked("mme", rows), model="m", benchmark="mme", protocol="p"
    )
    assert score.value == 80 + 60
    # per picture 50 + 0 or 100 + 100: 150 times a Bernoulli of chance 0.6
    half = 150 * 1.96 * (0.6 * 0.4 / 100) ** 0.5
    assert score.low == pytest.approx(score.value - half, abs=3)
    assert score.high == pytest.approx(score.value + half, abs=3)
    assert score.n == 200
