"""GQA, TextVQA, ChartQA and MathVista: hand-worked cases of their rules."""

from __future__ import annotations

import random

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.chartqa import number, relaxed
from seva_exp.benchmarks.gqa import exact, ignoring_punctuation, stripped
from seva_exp.benchmarks.mathvista import extract, official
from seva_exp.benchmarks.statistics import scores
from seva_exp.benchmarks.textvqa import soft, soft_digits
from seva_exp.benchmarks.vqa_text import agreement, normalise, normalise_kit
from seva_exp.core.records import Prediction

GQA = [  # said, target; LLaVA-1.5's and the official rule; lmms-eval's; VLMEvalKit's
    ("yes", "yes", 1, 1, 1), ("Yes", "yes", 1, 1, 1), ("Yes.", "yes", 1, 1, 0),
    ("yes...", "yes", 1, 1, 0), ("no", "yes", 0, 0, 0), ("No</s>", "no", 0, 0, 0),
    ("", "no", 0, 0, 0), ("not sure, yes", "yes", 0, 0, 0), ("(B)", "b", 0, 1, 0),
    ("The answer is C.", "c", 0, 0, 0), ("two", "2", 0, 0, 0), ("2", "two", 0, 0, 0),
    ("left", "left", 1, 1, 1), (" left\n", "left", 1, 1, 1), ("Left!", "left", 0, 1, 0),
    ("to the left", "left", 0, 0, 0), ("t-shirt", "t-shirt", 1, 1, 1),
    ("t shirt", "t-shirt", 0, 0, 0),
    ("tshirt", "t-shirt", 0, 1, 0), ("traffic light", "traffic light", 1, 1, 1),
    ("traffic  light", "traffic light", 0, 0, 0), ("$1,200", "1200", 0, 1, 0),
    ("12 %", "12", 0, 0, 0), ("12%", "12", 0, 1, 0), ("red。", "red", 0, 0, 0),
    ("the red", "red", 0, 0, 0),
    (".red", "red", 0, 1, 0), ("RED", "red", 1, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "target", "llava", "lmms", "kit"), GQA)
def test_gqa_compares_texts(text, target, llava, lmms, kit):
    found = [rule(text, target, {}).score for rule in (exact, ignoring_punctuation, stripped)]
    assert found == [llava, lmms, kit]


VQA = [  # by EvalAIAnswerProcessor (LLaVA's m4c_evaluator.py)
    ("Nokia", "nokia"), ("nokia.", "nokia"), ("a dog", "dog"), ("The dog", "dog"),
    ("an apple", "apple"), ("two", "2"), ("Ten", "10"), ("eleven", "eleven"), ("none", "0"),
    ("zero", "0"), ("dont", "don't"), ("don't", "don't"), ("isnt it", "isn't it"),
    ("its", "its"), ("girl's", "girl 's"), ("100,978", "100978"), ("$1,200", "$1200"),
    ("12 %", "12 %"), ("12%", "12%"), ("3.5", "3.5"), ("3.", "3"), ("u.s.", "us"), (".5", ".5"),
    ("well-known", "well known"), ("a - b", "b"), ("stop!", "stop"), ("who?", "who"),
    ("yes/no", "yes no"), ("2:50 pm", "2:50 pm"), ("", ""), ("a", ""),
    ("\nline\tbreak\n", "line break"),
    ("No</s>", "no s"), ("not sure, yes", "not sure yes"), ("(B)", "b"),
    ("The answer is C.", "answer is c"), ("诺基亚。", "诺基亚。"), ("rock & roll", "rock & roll"),
    ("youre", "you're"), ("couldve", "could've"), ("oclock", "o'clock"),
    ("couldnt've", "couldn't've"), ("wed've", "we'd've"), ("somebody'dve", "somebody'd've"),
    ("I'm", "i'm"), ("im", "im"), ("Ive", "ive"), ("somebody'd", "somebodyd"), ("yall", "y'all"),
    ("somethings", "somethings"), ("someones", "someone's"), ("y'all'dve", "y'all'd've"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "form"), VQA)
def test_the_evaluations_normal_form(text, form):
    assert normalise(text) == form


KIT = [  # by VLMEvalKit's process_answer (vqa_eval.py, with smp/misc.py's process_punctuation)
    ("3.14.", "3.14."), ("3.14", "3.14"), ("3.", "3."), ("3.5.", "3.5."), ("no. 5.", "no 5."),
    ("u.s.", "us"), ("Nokia.", "nokia"), ("girl's", "girl's"), ("The Dog", "dog"),
    ("100,978", "100978"), ("who?", "who"), ("yes, no", "yes no"), ("12,5 a.m.", "125 am"),
    ("stop!", "stop"), ("well-known", "well known"), ("two", "2"), ("dont", "don't"),
    ("a. b.", "b"), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "form"), KIT)
def test_vlmevalkits_normal_form(text, form):
    assert normalise_kit(text) == form


def test_a_full_stop_behind_a_digit_stays_under_vlmevalkit_alone():
    details = {"answers": ["3.14"] * 10}
    assert soft_digits("3.14.", "3.14", details).score == 0
    assert soft_digits("3.14", "3.14", details).score == 1
    assert soft("3.14.", "3.14", details).score == 1
    rules = {
        name: OFFICIAL["textvqa"](kind="textvqa", protocol=name).rules_of_protocol.rule
        for name in ("llava15", "lmms_eval", "vlmevalkit")
    }
    assert rules == {"llava15": "soft", "lmms_eval": "soft", "vlmevalkit": "soft_digits"}


def test_32_full_stops_go_at_most():
    """A flag of the value 32 stands in the scripts where ``re.sub`` takes a count."""
    assert normalise("a." * 40) == "a" * 33 + ".a" * 7 + "."
    assert normalise_kit("a." * 40) == "a" * 33 + ".a" * 7 + "."


@pytest.mark.parametrize(
    ("same", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_each_person_is_left_out_in_turn(same, score):
    """Of k equal answers, k people see k - 1 others and the rest k: with k = 3 that is
    (3 * 2/3 + 7 * 1) / 10."""
    given = ("dog",) * same + tuple(f"other{i}" for i in range(10 - same))
    assert agreement("dog", given) == pytest.approx(score)


def test_textvqa_compares_normal_forms_of_both():
    answers = ["The Nokia", "nokia", "Nokia."] + ["samsung"] * 7
    assert soft("NOKIA!", "", {"answers": answers}).score == pytest.approx(0.9)
    assert soft("samsung", "", {"answers": answers}).score == 1
    assert soft("", "", {"answers": answers}).score == 0


CHART = [  # by relaxed_correctness (lmms-eval's chartqa/utils.py, after Methani et al. 2020)
    ("10", "10", 1), ("10.5", "10", 1), ("9.5", "10", 1), ("10.51", "10", 0), ("9.49", "10", 0),
    ("-10", "10", 0), ("-10", "-10", 1), ("12 %", "12", 0), ("12%", "12%", 1), ("12 %", "0.12", 1),
    ("0.12", "12%", 1), ("12.5%", "12%", 1), ("$1,200", "1200", 0), ("$1,200", "$1,200", 1),
    ("1,200", "1200", 0), ("1200", "1200.0", 1), ("0", "0", 1), ("0.0", "0", 0), ("0.01", "0", 0),
    ("Yes", "yes", 1), ("No</s>", "No", 0), ("no", "No", 1), ("two", "2", 0), ("", "2", 0),
    ("not sure, yes", "yes", 0), ("(B)", "B", 0), ("The answer is C.", "C", 0), (" 10\n", "10", 1),
    ("10.", "10", 1), ("2019", "2018", 1), ("1e1", "10", 1), ("nan", "10", 0), ("inf", "10", 0),
    ("日本。", "日本", 0), ("Blue", "blue", 1), ("light blue", "blue", 0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "target", "score"), CHART)
def test_chartqa_allows_numbers_five_percent(text, target, score):
    assert relaxed(text, target, {}).score == score


def test_a_percentage_is_a_number_and_money_is_none():
    assert [number(x) for x in ("12 %", "12%", "0.5", "$5", "1,200", "")] == [
        0.12, 0.12, 0.5, None, None, None,
    ]  # fmt: skip


CHOICES = ("3 cm", "4 cm", "5 cm")
NEAREST = [  # what calculate_score.py makes of an extracted number where there are choices
    ("5", "4", ("4", "15"), "integer", 1), ("15", "15", ("4", "15"), "integer", 1),
    ("14", "4", ("4", "15"), "integer", 1), ("4.0", "4", ("4", "15"), "float", 1),
    ("15", "15", ("4", "15"), "float", 1), (" 15 ", "15", ("4", "15"), "integer", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "target", "choices", "answer_type", "score"), NEAREST)
def test_a_number_is_the_nearest_choice_where_there_are_choices(
    text, target, choices, answer_type, score
):
    details = {"choices": choices, "answer_type": answer_type, "precision": None}
    found = official(text, target, details)
    assert (found.score, found.counts["unparsed"]) == (score, 0)


MATH = [  # by extract_answer.py and calculate_score.py (but for the empty answer)
    # said, target, choices, answer type, precision; score, whether a rule parsed it
    ("4 cm", "4 cm", CHOICES, "text", None, 1, 1), ("B", "4 cm", CHOICES, "text", None, 1, 1),
    ("(B)", "4 cm", CHOICES, "text", None, 1, 1), ("(B) 4 cm", "4 cm", CHOICES, "text", None, 1, 1),
    ("B. 4 cm", "4 cm", CHOICES, "text", None, 1, 1), ("(A)", "4 cm", CHOICES, "text", None, 0, 1),
    ("The answer is C.", "5 cm", CHOICES, "text", None, 1, 1),
    ('The answer is "4cm".', "4 cm", CHOICES, "text", None, 1, 1),  # the nearest choice
    ('The answer is "b".', "3 cm", CHOICES, "text", None, 1, 1),  # of equal distance: the first
    ('The answer is "(b), not (a)".', "4 cm", CHOICES, "text", None, 1, 1),  # the first letter
    ("D", "5 cm", CHOICES, "text", None, 0, 0), ("", "5 cm", CHOICES, "text", None, 0, 0),
    ("about four", "4 cm", CHOICES, "text", None, 0, 0),
    ("12", "12", (), "integer", None, 1, 1), (" 12\n", "12", (), "integer", None, 1, 1),
    ("12.0", "12", (), "integer", None, 0, 0), ("+12", "12", (), "integer", None, 1, 1),
    ("two", "2", (), "integer", None, 0, 0), ("12 %", "12", (), "integer", None, 0, 0),
    ("$1,200", "1200", (), "integer", None, 0, 0),
    ("The answer is 12.", "12", (), "integer", None, 0, 0),
    ('The answer is "12".', "12", (), "integer", None, 1, 1),
    ('The answer is "12.7".', "12", (), "integer", None, 1, 1),
    ('The answer is "twelve".', "12", (), "integer", None, 0, 1),
    ("1.25", "1.2", (), "float", 1, 1, 1), ("1.24", "1.2", (), "float", 1, 1, 1),
    ("1.26", "1.2", (), "float", 1, 0, 1), ("1", "1.0", (), "float", 1, 1, 1),
    ("1.256", "1.26", (), "float", 2, 1, 1), ("1,2", "1.2", (), "float", 1, 0, 0),
    ("inf", "1.2", (), "float", 1, 0, 1), ("[1, 2]", "[1, 2]", (), "list", None, 0, 0),
    ('The answer is "[1, 2]".', "[1, 2]", (), "list", None, 1, 1),
    ("No</s>", "No", ("Yes", "No"), "text", None, 0, 0),
    ("No", "No", ("Yes", "No"), "text", None, 1, 1),
    ("not sure, yes", "Yes", ("Yes", "No"), "text", None, 0, 0),
    ("选B。", "No", ("Yes", "No"), "text", None, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "target", "choices", "answer_type", "precision", "score", "parsed"), MATH
)
def test_mathvista_by_rules(text, target, choices, answer_type, precision, score, parsed):
    details = {"choices": choices, "answer_type": answer_type, "precision": precision}
    found = official(text, target, details)
    assert (found.score, 1 - found.counts["unparsed"]) == (score, parsed)


def test_what_no_rule_parses_is_never_the_nearest_choice():
    assert extract("I cannot tell", CHOICES, "text") is None


def test_soft_scores_add_up_to_the_same_in_any_order():
    """Thirds and tenths: a sum of them in another order differs in its last bits."""
    rng = random.Random(3)
    answers = [["dog"] * rng.randint(0, 4) + [str(i) for i in range(10)] for _ in range(200)]
    predictions = []
    for i, given in enumerate(answers):
        found = soft("dog", "", {"answers": given[:10]})
        predictions.append(
            Prediction(
                f"{i:03d}", str(i % 7), "all", "", "dog", found.extracted, "", found.score,
                found.counts,
            )
        )  # fmt: skip
    benchmark = OFFICIAL["textvqa"](kind="textvqa")
    names = {"model": "m", "benchmark": "b", "protocol": "p"}
    want = scores(benchmark.metrics, predictions, **names)
    for _ in range(5):
        rng.shuffle(predictions)
        assert scores(benchmark.metrics, predictions, **names) == want
