"""MMBench, ScienceQA, SEED-Bench: how letters are read, by hand-worked cases; circular scores."""

from __future__ import annotations

import random

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.letters import (
    exact,
    first_character,
    letter_or_text,
    lone_token,
    near_end,
    prefixed,
    the_answer_is,
)
from seva_exp.benchmarks.statistics import scores
from seva_exp.core.records import Prediction

OPTIONS = {"A": "a dog", "B": "Cat", "C": "$1,200", "D": "12 %"}

MMBENCH = [
    ("B", "B"), ("B.", "B"), ("B. Cat", "B"), ("(B)", "B"), ("(B) Cat", "B"), ("B)", "B"),
    ("B: Cat", "B"), ("B、Cat", "B"), ("B。", "B"), ("（B）", "B"), (" B\n", "B"), ("**B**", "B"),
    ("The answer is C.", "C"), ("The answer is C", "C"), ("the correct answer is (C)", "C"),
    ("Answer: D", "D"), ("答案是B", "B"), ("答案：C。", "C"), ("我选D", "D"), ("选项A是对的", "A"),
    ("It must be (B).", "B"), ("(A) or (B)", ""), ("I think (A) or (B)", ""),
    ("Cat", "B"), ("cat.", "B"), ("“Cat”", "B"), ("$1,200", "C"), ("12 %", "D"), ("12%", ""),
    ("A dog", "A"), ("a dog", "A"), ("A dog is there", ""), ("", ""), ("E", ""), ("F. five", ""),
    ("not sure, yes", ""), ("two", ""), ("No</s>", ""), ("The answer is E.", ""), ("b", ""),
    ("The answer is C or D", ""), ("Because", ""), ("A/B", ""), ("A或B", ""),
    ("Both A and B are right", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "letter"), MMBENCH)
def test_mmbench_reads_a_letter_or_an_options_text(text, letter):
    assert letter_or_text(text, OPTIONS) == letter


def test_two_options_of_one_text_are_not_told_apart():
    assert letter_or_text("cat", {"A": "cat", "B": "Cat."}) == ""


ANIMALS = {"A": "a dog", "B": "a cat", "C": "a bird", "D": "a horse"}
HARNESSES = [  # lmms-eval's can_infer (mmbench_evals.py); VLMEvalKit's (matching_util.py)
    ("B", "B", "B"), ("B.", "B", "B"), ("B. a cat", "B", "B"), ("(B)", "B", "B"), ("B)", "B", "B"),
    ("B\nExplanation: it purrs.", "B", "B"), ("I think it is C", "C", "C"),
    ("It is a cat.", "B", "B"), ("A dog is there", "A", "A"), ("A dog", "A", "A"),
    ("a dog", "A", "A"), ("The answer is C.", "C", "C"), ("the answer is (C)", "C", "C"),
    ("B or C", "", ""), ("A/B", "", ""), ("E", "E", ""), ("b", "", ""), ("", "", ""),
    ("It is a cat or a dog.", "", ""), ("(A) (B)", "", ""), ("I like C. and D.", "", ""),
    ("It is B because of the long tail", "B", ""),  # not among the last four words
    ("The answer is a bird", "C", "A"),  # "answer is a", in any case
    ("**B**", "", "B"), ("Z", "", "Z"), ("Option:B", "", "B"), ("**Answer:** B", "B", "B"),
    ("A cat, or B: a dog", "B", ""), ("答案是B", "", ""), ("B。", "", ""),
    ("The correct answer is **D**. Here is why: it neighs and has a mane.", "", "D"),
    ("a cat " * 12, "B", ""),  # longer than twice all options
    ("A. a cat", "A", "A"), ("A thing is there", "", "A"), ("A it is", "A", "A"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "lmms", "kit"), HARNESSES)
def test_mmbench_letters_as_each_harness_reads_them(text, lmms, kit):
    assert (lone_token(text, ANIMALS), near_end(text, ANIMALS)) == (lmms, kit)


def test_vlmevalkit_reads_no_option_in_an_answer_of_more_than_twice_their_length():
    most = 2 * sum(map(len, ANIMALS.values()))
    assert near_end("a cat".ljust(most, "."), ANIMALS) == "B"
    assert near_end("a cat".ljust(most + 1, "."), ANIMALS) == ""


@pytest.mark.parametrize("kind", ["mmbench_en", "mmbench_cn", "seed", "scienceqa"])
def test_a_protocol_reads_letters_as_its_harness_does(kind):
    rules = {"lmms_eval": "lone_token", "vlmevalkit": "near_end"}
    if kind in ("seed", "scienceqa"):
        del rules["lmms_eval"]  # rules of their own there
    for protocol, rule in rules.items():
        benchmark = OFFICIAL[kind](kind=kind, protocol=protocol)
        assert benchmark.rules_of_protocol.rule == rule
        said = benchmark.rules[rule]("It is a cat.", "B", {"options": ANIMALS})
        assert (said.extracted, said.score, said.counts["unparsed"]) == ("B", 1, 0)


SCIENCE = [  # LLaVA-1.5's rule; lmms-eval's
    ("B", "B", "B"), ("B.", "", "B"), ("B. Cat", "B", "B"), ("B Cat", "", ""), ("(B)", "", ""),
    ("B) Cat", "", ""), ("The answer is C.", "C", ""), ("The answer is C", "", ""),
    ("The answer is C, since", "C", ""), ("So: The answer is A.", "A", ""),
    ("The answer is A. The answer is B.", "", ""), ("the answer is C.", "", ""), ("", "", ""),
    ("E", "", ""), ("E. x", "", ""), ("b", "", "B"), ("b. Cat", "", ""),
    (" B ", "B", "B"), ("B\n", "B", "B"),
    ("B.Cat", "", "B"), ("Cat", "", ""), ("No</s>", "", ""), ("not sure, yes", "", ""),
    ("two", "", ""), ("$1,200", "", ""), ("12 %", "", ""), ("答案是B。", "", ""), ("B。", "", ""),
    ("A dog", "", ""), ("D. 12 %", "D", "D"), ("The answer is E.", "", ""), ("FAILED", "", ""),
    ("I. The answer is B.", "B", ""), ("E. The answer is B.", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "llava", "lmms"), SCIENCE)
def test_scienceqa_reads_three_forms(text, llava, lmms):
    assert (the_answer_is(text, OPTIONS), prefixed(text, OPTIONS)) == (llava, lmms)


SEED = [  # LLaVA-1.5's rule; lmms-eval's
    ("A", "A", "A"), ("B", "B", "B"), ("C", "C", "C"), ("D", "D", "D"), ("E", "", ""),
    (" A", "A", "A"), ("A\n", "A", "A"), ("A.", "", "A"), ("A. a dog", "", "A"), ("(A)", "", ""),
    ("A dog", "", "A"), ("Answer: B", "", "A"), ("a", "", "A"), ("", "", ""), ("No</s>", "", ""),
    ("not sure, yes", "", ""), ("(B)", "", ""), ("The answer is C.", "", ""), ("$1,200", "", ""),
    ("12 %", "", ""), ("two", "", ""), ("B。", "", "B"), ("答案是B", "", ""), ("AB", "", "A"),
    ("Cat", "", "C"), ("Dog", "", "D"), ("B B", "", "B"), ("B</s>", "", "B"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "llava", "lmms"), SEED)
def test_seed_wants_the_letter_alone(text, llava, lmms):
    assert (exact(text, OPTIONS), first_character(text, OPTIONS)) == (llava, lmms)


def answered(rows: list[tuple[str, str, str]]) -> list[Prediction]:
    """Predictions of (question, what was said, target) rows, options A and B."""
    rule = OFFICIAL["mmbench_en"].rules["letter_or_text"]
    found = []
    for number, (group, text, target) in enumerate(rows):
        scored = rule(text, target, {"options": {"A": "x", "B": "y"}})
        found.append(
            Prediction(
                f"{number:04d}", group, "LR" if group < "5" else "AR", "", text, scored.extracted,
                target, scored.score, scored.counts,
            )
        )  # fmt: skip
    return found


def table(predictions: list[Prediction], protocol: str = "llava15"):
    benchmark = OFFICIAL["mmbench_en"](kind="mmbench_en", protocol=protocol)
    found = scores(benchmark.metrics, predictions, model="m", benchmark="b", protocol="p")
    return {(score.split, score.metric): score for score in found}


def test_a_question_counts_where_every_rotation_is_right():
    rows = [
        ("1", "A", "A"), ("1", "B", "B"),  # right both times
        ("2", "A", "A"), ("2", "A", "B"),  # always says A
        ("3", "who knows", "A"), ("3", "B", "B"),
        ("7", "B.", "B"),  # it has no rotation
    ]  # fmt: skip
    found = table(answered(rows))
    assert found["all", "accuracy"].value == 50
    assert found["all", "accuracy"].n == 4, "questions, not rows"
    assert found["LR", "accuracy"].value == pytest.approx(100 / 3)
    assert (found["AR", "accuracy"].value, found["AR", "accuracy"].n) == (100, 1)
    assert found["all", "unparsed"].value == pytest.approx(100 / 7)
    assert found["all", "unparsed"].n == 7


def test_a_protocol_may_count_every_row(tmp_path):
    own = tmp_path / "rows.yaml"
    own.write_text('mmbench_en: {prompt: "{question}", rule: letter_or_text, max_new_tokens: 9}\n')
    rows = [("1", "A", "A"), ("1", "A", "B"), ("2", "B", "B"), ("2", "A", "A")]
    found = table(answered(rows), str(own))
    assert (found["all", "accuracy"].value, found["all", "accuracy"].n) == (75, 4)


def test_scores_do_not_depend_on_the_predictions_order():
    rng = random.Random(5)
    rows = [(str(i // 2), rng.choice("AB?"), rng.choice("AB")) for i in range(60)]
    predictions = answered(rows)
    want = table(predictions)
    for _ in range(5):
        rng.shuffle(predictions)
        assert table(predictions) == want
