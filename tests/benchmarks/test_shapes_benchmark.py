"""The embedded world's benchmark: scoring rules on hand-worked cases, and its questions."""

from __future__ import annotations

import pytest

from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.benchmarks.shapes import (
    POPE_SPLITS,
    VQA_TYPES,
    describe_counts,
    existence_counts,
    yes_or_no,
)
from seva_exp.benchmarks.statistics import GroupSums
from seva_exp.world import mentions


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("No, there is none.", "no"),
        ("NO", "no"),
        (" Yes, there is a star", "yes"),
        ("Not sure, yes", ""),
        ("I see no star", ""),
        ("", ""),
        ("nope", ""),
        ("yesterday", ""),
        ("red", ""),
    ],
)
def test_only_a_first_word_yes_or_no_counts(text, said):
    assert yes_or_no(text) == said


@pytest.mark.parametrize(
    ("target", "text", "correct", "yes", "twice_hits", "f1_below"),
    [
        ("yes", "Yes", 1, 1, 2, 2),
        ("yes", "No", 0, 0, 0, 1),
        ("no", "Yes", 0, 1, 0, 1),
        ("no", "No", 1, 0, 0, 0),
        ("yes", "maybe", 0, 0, 0, 1),
        ("no", "maybe", 0, 0, 0, 0),
    ],
)
def test_existence_counts(target, text, correct, yes, twice_hits, f1_below):
    found = existence_counts(target, text)
    counts = found.counts
    assert found.score == correct
    assert (counts["correct"], counts["yes"]) == (correct, yes)
    assert (counts["twice_hits"], counts["f1_below"]) == (twice_hits, f1_below)


THERE = "The image shows a red star and a blue moon."


@pytest.mark.parametrize(
    ("text", "said", "wrong", "found", "any_wrong"),
    [
        (THERE, 2, 0, 2, 0),
        ("The image shows a red star.", 1, 0, 1, 0),
        ("The image shows a red star and a green moon.", 2, 1, 1, 1),
        ("a red star, a blue moon and a green ring", 3, 1, 2, 1),
        ("a red star, a red star and a red star", 3, 0, 1, 0),
        ("a purple cross", 1, 1, 0, 1),
        ("nothing at all", 0, 0, 0, 0),
        ("", 0, 0, 0, 0),
    ],
)
def test_describe_counts(text, said, wrong, found, any_wrong):
    scored = describe_counts(THERE, text)
    counts = scored.counts
    assert counts["mentions"] == said
    assert counts["wrong"] == wrong
    assert counts["found"] == found
    assert counts["any_wrong"] == any_wrong
    assert counts["present"] == 2
    assert counts["words"] == len(text.split())
    assert scored.score == (wrong == 0)


def test_every_picture_is_asked_a_balanced_set():
    benchmark = ShapesBenchmark(images=30)
    questions = list(benchmark.questions())
    assert len({q.id for q in questions}) == len(questions)
    for index in range(30):
        mine = [q for q in questions if q.group == f"{index:06d}"]
        for split in POPE_SPLITS:
            assert sorted(q.target for q in mine if q.type == f"pope_{split}") == ["no", "yes"]
        assert [q.type for q in mine].count("describe") == 1
        assert all(q.type.startswith("pope_") or q.type in (*VQA_TYPES, "describe") for q in mine)


def test_existence_answers_are_true_of_the_picture():
    benchmark = ShapesBenchmark(images=40)
    for question in benchmark.questions():
        if question.type.startswith("pope_"):
            scene, _ = benchmark.scene(int(question.group))
            things = {(t.color, t.kind) for t in scene.things} | {
                (None, t.kind) for t in scene.things
            }
            ((asked),) = mentions(question.prompt)
            assert (asked in things) == (question.target == "yes"), question.prompt


def test_a_picture_does_not_depend_on_how_many_there_are():
    few = [q.prompt for q in ShapesBenchmark(images=3).questions()]
    many = [q.prompt for q in ShapesBenchmark(images=9).questions()]
    assert many[: len(few)] == few


def test_perfect_answers_score_100_and_silence_scores_0():
    benchmark = ShapesBenchmark(images=25)
    questions = list(benchmark.questions())
    perfect = GroupSums([benchmark.predict(q, q.target) for q in questions])
    silent = GroupSums([benchmark.predict(q, "") for q in questions])
    for metric in benchmark.metrics():
        best = {"chair_i": 0, "chair_s": 0, "yes_rate": 50}.get(metric.name, 100)
        if metric.name != "words":
            assert perfect.value(metric) == pytest.approx(best), metric
        if metric.name in ("accuracy", "mean", "recall", "f1"):
            assert silent.value(metric) == 0, metric
