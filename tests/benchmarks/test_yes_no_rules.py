"""POPE and MME: how answers are read, by hand-worked cases, and what tables come of counts."""

from __future__ import annotations

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.mme import COGNITION, PERCEPTION
from seva_exp.benchmarks.statistics import deltas, scores
from seva_exp.benchmarks.yes_no import (
    beginning,
    beginning_or_initial,
    exact,
    first_sentence,
    one_of_both,
)
from seva_exp.core.records import Prediction

POPE = [  # what was said; by LLaVA's eval_pope.py; lmms-eval's pope/utils.py; VLMEvalKit's yorn.py
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


MME = [  # by MME's calculation.py, whose parse_pred_ans lmms-eval has
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
        (". yes", "yes"),
        ("...  no", "no"),
        ("...    NO", ""),
        ("3. yes", ""),
        ("a..no", "no"),
        ("x", ""),
        (".", ""),
    ],
)
def test_lmms_evals_mme_drops_full_stops_and_knows_initials(text, said):
    assert beginning_or_initial(text) == said


def asked(
    kind: str, rows: list[tuple[str, str, str, str]], protocol: str = "llava15"
) -> list[Prediction]:
    """Predictions of (group, type, target, what was said) rows."""
    rule = OFFICIAL[kind].rules[OFFICIAL[kind](kind=kind, protocol=protocol).rules_of_protocol.rule]
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


def table(
    kind: str, predictions: list[Prediction], protocol: str = "llava15"
) -> dict[tuple[str, str], float]:
    benchmark = OFFICIAL[kind](kind=kind, protocol=protocol)
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


def drawn(unread: str | None = None) -> list[tuple[str, str, str, str]]:
    """SeVa's answers; every 33rd is ``unread``."""
    rows = []
    for split, (tp, fp) in SEVA_800.items():
        answers = [("yes", "yes")] * tp + [("yes", "no")] * (1500 - tp)
        answers += [("no", "yes")] * fp + [("no", "no")] * (1500 - fp)
        rows += [(str(i % 500), split, *answer) for i, answer in enumerate(answers)]
    return [(*row[:3], unread if unread and i % 33 == 0 else row[3]) for i, row in enumerate(rows)]


POOLED = [  # accuracy, precision, recall, F1 of all three splits' answers
    # as VLMEvalKit's POPE_rating and lmms-eval's pope_aggregate_* compute them
    ("vlmevalkit", None, (86.67, 87.31, 85.80, 86.55)),
    ("lmms_eval", None, (86.67, 87.31, 85.80, 86.55)),
    # 3 % of the answers are neither: no misses to VLMEvalKit; lmms-eval's recall leaves them out
    ("vlmevalkit", "Perhaps", (84.06, 87.31, 83.20, 85.21)),
    ("lmms_eval", "Perhaps", (84.06, 87.31, 85.83, 86.57)),
]


@pytest.mark.parametrize(("protocol", "unread", "values"), POOLED)
def test_a_harness_that_pools_the_splits_is_pooled(protocol, unread, values):
    found = table("pope", asked("pope", drawn(unread), protocol=protocol), protocol)
    names = ("accuracy", "precision", "recall", "f1")
    assert tuple(found["all", name] for name in names) == values
    assert ("mean", "f1") not in found
    assert found["all", "unparsed"] == (3.03 if unread else 0)


@pytest.mark.parametrize("protocol", ["llava15", "lmms_eval", "vlmevalkit"])
def test_the_splits_of_each_protocol_are_pooled_or_their_mean_is_taken(protocol):
    """With as many answers in each split their accuracies agree, but F1 does not."""
    found = table("pope", asked("pope", drawn(), protocol=protocol), protocol)
    whole = {"f1": 86.61} if protocol == "llava15" else {"f1": 86.55}
    split = "mean" if protocol == "llava15" else "all"
    assert found[split, "f1"] == whole["f1"]
    assert found["adversarial", "f1"] == 83.54


@pytest.mark.parametrize(("rule", "missed"), [("exact", 0), ("one_of_both", 1)])
def test_an_answer_that_is_neither_is_no_false_alarm(rule, missed):
    """lmms-eval's recall leaves it out, VLMEvalKit counts it as no."""
    read = OFFICIAL["pope"].rules[rule]
    kept = ("correct", "yes", "tp", "fp", "fn", "unparsed")
    found = {
        (target, text): [read(text, target, {}).counts[name] for name in kept]
        for target in ("yes", "no")
        for text in ("yes", "no", "Perhaps")
    }
    assert found == {
        ("yes", "yes"): [1, 1, 1, 0, 0, 0],
        ("yes", "no"): [0, 0, 0, 0, 1, 0],
        ("yes", "Perhaps"): [0, 0, 0, 0, missed, 1],
        ("no", "yes"): [0, 1, 0, 1, 0, 0],
        ("no", "no"): [1, 0, 0, 0, 0, 0],
        ("no", "Perhaps"): [0, 0, 0, 0, 0, 1],
    }


@pytest.mark.parametrize("protocol", ["llava15", "lmms_eval", "vlmevalkit"])
def test_where_nothing_is_answered_yes_precision_is_0(protocol):
    """As in both harnesses; of how precise the model is nothing is known."""
    rows = [("a", "random", "yes", "no"), ("b", "random", "no", "no")]
    predictions = asked("pope", rows, protocol=protocol)
    found = table("pope", predictions, protocol)
    assert [found["random", name] for name in ("precision", "recall", "f1")] == [0, 0, 0]
    benchmark = OFFICIAL["pope"](kind="pope", protocol=protocol)
    names = {"model": "m", "benchmark": "pope", "protocol": "p"}
    every = {(s.split, s.metric): s for s in scores(benchmark.metrics, predictions, **names)}
    precision = every["random", "precision"]
    assert (precision.low, precision.high) == (0, 100)


def test_where_nothing_is_there_recall_is_0():
    rows = [("a", "random", "no", "no"), ("b", "random", "no", "no")]
    found = table("pope", asked("pope", rows))
    assert [found["random", name] for name in ("recall", "f1", "accuracy")] == [0, 0, 100]
    assert ("popular", "recall") not in found, "what was not asked has no value"


def test_a_resample_without_a_split_tells_nothing_of_it():
    """Of one picture with a question on what is popular, precision is 100 or unknown, never 0."""
    rows = [(str(i), "random", "yes", "yes") for i in range(9)]
    predictions = asked("pope", [*rows, ("0", "popular", "yes", "yes")])
    benchmark = OFFICIAL["pope"](kind="pope")
    names = {"model": "m", "benchmark": "pope", "protocol": "p"}
    found = {(s.split, s.metric): s for s in scores(benchmark.metrics, predictions, **names)}
    popular = found["popular", "precision"]
    assert (popular.value, popular.low, popular.high) == (100, pytest.approx(2.5), 100)


def test_a_model_that_starts_to_say_yes_changes_precision_from_0():
    benchmark = OFFICIAL["pope"](kind="pope")
    rows = [(str(i), "random", "yes", "no") for i in range(40)]
    says = [(*row[:3], row[2]) for row in rows]
    found = deltas(benchmark.metrics, asked("pope", rows), asked("pope", says), benchmark="pope")
    (precision,) = (d for d in found if (d.split, d.metric) == ("random", "precision"))
    assert (precision.value, precision.low, precision.high) == (100, 100, 100)
    assert precision.mcnemar_p is None, "no group has a precision before"


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
