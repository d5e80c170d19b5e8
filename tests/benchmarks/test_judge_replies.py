"""What a judge's replies say, by hand; and what is made of what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seva_exp.benchmarks import OFFICIAL, llava_bench
from seva_exp.benchmarks.base import Question
from seva_exp.benchmarks.judge_answers import judged_scores, settled
from seva_exp.benchmarks.judging import Judge
from seva_exp.benchmarks.llava_bench import read_pair
from seva_exp.benchmarks.mathvista import messages, official, read
from seva_exp.benchmarks.mmvet import read_score
from seva_exp.benchmarks.shr import (
    described,
    distinct,
    read_labels,
    repetition,
    scored,
    sentences,
)
from seva_exp.benchmarks.shr import messages as shr_asked
from seva_exp.core.records import Judgement, Prediction
from seva_exp.stages.evaluation import scored_in_both

SCORES = [  # by mm-vet_evaluator.py: float(reply.split(" ")[0].strip()), from 0 to 1; NaN is ours
    ("0.0", 0.0), ("0", 0.0), ("0.", 0.0), (".5", 0.5), ("0.5", 0.5), ("1", 1.0), ("1.0", 1.0),
    ("1.", 1.0), ("0.55", 0.55), ("0.7\n", 0.7), ("\n0.7", 0.7), ("0.9 because", 0.9),
    ("1.0 | 0.0", 1.0), ("+0.3", 0.3), ("00.4", 0.4), ("1.00", 1.0), ("0.10", 0.1),
    ("", None), (" 0.7", None), ("0,5", None), ("1.1", None), ("-0.1", None), ("10", None),
    ("nan", None), ("inf", None), ("1e-1", 0.1), ("half", None), ("Correctness: 0.5", None),
    ("0.5.", None), ("0.5\nfine", None), ("0.5/1.0", None), ("50%", None), ("**0.5**", None),
    ("0_1", 1.0), ("٠", 0.0), ("０.５", 0.5), ("0.5，", None), ("-0.0", 0.0), ("1e0", 1.0),
    ("I think 0.5", None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "want"), SCORES)
def test_mmvets_score_is_the_number_before_the_first_blank(reply, want):
    assert read_score(reply) == want


PAIRS = [  # by parse_score (LLaVA's eval_gpt_review_bench.py) where that reads one; else ours
    ("8 9", (8, 9)), ("8 9\nThe second ...", (8, 9)), ("8,9", (8, 9)), ("8, 9", (8, 9)),
    ("8.5 7", (8.5, 7)), (" 8  9 ", (8, 9)), ("8\t9", (8, 9)), ("10 1", (10, 1)), ("0 0", (0, 0)),
    ("\n8 9", (8, 9)), ("8 9\n\nWhy 3 4", (8, 9)), ("8.0, 9.5\n1 2", (8, 9.5)), ("7 7.", (7, 7)),
    ("1 10\r\nbecause", (1, 10)),
    ("", None), ("8", None), ("8 9 10", None), ("eight nine", None), ("8/10 9/10", None),
    ("Assistant 1: 8 Assistant 2: 9", None), ("Scores: 8 9", None), ("11 9", (11, 9)),
    ("11 12", (11, 12)), ("-1 5", (-1, 5)), ("1e1 9", (10, 9)),
    ("nan 5", None), ("5 inf", None), ("8\n9", None), ("8 and 9", None),
    ("(8, 9)", None), ("8 9.", (8, 9)), ("8; 9", None), ("８ ９", (8, 9)), ("**8 9**", None),
    ("Here are the scores.\n8 9", None), ("8 9 because", None), ("8，9", None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "want"), PAIRS)
def test_llava_benchs_scores_are_the_two_numbers_of_the_first_line(reply, want):
    assert read_pair(reply) == want


def test_llava_benchs_first_score_is_the_references():
    found = llava_bench.read("8 4", prediction(0), prediction(0))
    assert (found.extracted, found.score) == ("8 4", 0.4)
    assert found.counts == {"judged": 1, "reference": 8, "model": 4}


H, C, N = "hallucination", "correct", "cannot judge"
LABELS = [
    ("1. hallucination: no dog", [H]),
    ("1. correct: it is there", [C]),
    ("1. cannot judge: a mood", [N]),
    ("1. Correct", [C]),
    ("1. CANNOT JUDGE.", [N]),
    ("1) correct", [C]),
    ("1: correct", [C]),
    ("Judgement:\n1. correct: a\n2. hallucination: b", [C, H]),
    ("1. correct\n\n2. correct\n", [C, C]),
    ("  1. correct\n  2. cannot judge", [C, N]),
    ("**1.** correct\n**2.** **hallucination**: b", [C, H]),
    ("2. hallucination\n1. correct", [C, H]),
    ('1. "correct": it is', [C]),
    ("1. [hallucination] no", [H]),
    ("Here:\n1. correct: there is 1 dog\nDone.", [C]),
    ("1.correct", [C]),
    ("1. hallucination, since 2. is no number here", [H]),
    ("10. correct", None),
    ("", None),
    ("correct", None),
    ("1. maybe", None),
    ("1. correct\n1. correct", None),
    ("1. correct\n3. correct", None),
    ("1. correct\n2. hallucination: b\n3. correct", None),
    ("1. the sentence is correct", None),
    ("1. incorrect", None),
    ("1. correctly seen", None),
    ("1. hallucinations", None),
    ("1. not correct", None),
    ("0. correct\n1. correct", None),
    ("1. 正确", None),
    ("1.", None),
    ("- correct", None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "want"), LABELS)
def test_shrs_labels_fit_the_sentences_one_to_one(reply, want):
    assert read_labels(reply, len(want) if want else 2 if "2." in reply else 1) == want


def test_labels_that_are_too_few_or_too_many_are_none():
    two = "1. correct\n2. correct"
    assert read_labels(two, 2) == [C, C]
    assert read_labels(two, 1) is None
    assert read_labels(two, 3) is None
    assert read_labels("1. correct\n3. correct", 2) is None


SENTENCES = [  # by get_model_cap (HA-DPO's shr_utils.py)
    ("", []), (" \n ", []), ("...", []), ("A dog.", ["A dog"]), ("A dog", ["A dog"]),
    ("A dog. A cat.", ["A dog", "A cat"]), ("Is it? Yes! It is", ["Is it? Yes! It is"]),
    ("One\nTwo", ["One\nTwo"]), ("It is 1.5 m long.", ["It is 1", "5 m long"]),
    ('He says "hi." Then goes.', ['He says "hi', '" Then goes']), ("A. . B.", ["A", "B"]),
    ("A cat sits. A cat sits. A dog.", ["A cat sits", "A dog"]),
    ("A dog runs. A dog. A cat.", ["A dog runs", "A cat"]),  # contained in an earlier one
    ("A dog. A dog runs.", ["A dog", "A dog runs"]),  # the earlier is contained: both stay
    ("a dog. A dog.", ["a dog", "A dog"]), ("one two. one two", ["one two"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "want"), SENTENCES)
def test_shrs_sentences_without_those_that_repeat_an_earlier_one(text, want):
    assert sentences(text) == want


GRAMS = [  # by cal_repetition (HA-DPO's shr_utils.py): shares of distinct 1-, 2-, 3-, 4-grams
    ("The dog. The dog runs fast. A dog", (5 / 8, 6 / 7, 1, 1)),
    ("A cat sits. A cat sits. A dog.", (4 / 8, 4 / 7, 4 / 6, 4 / 5)),
    ("A dog runs. A dog. A cat.", (4 / 7, 5 / 6, 1, 1)), ("A dog", (1, 1, None, None)),
    ("a dog. A dog.", (3 / 4, 1, 1, 1)), ("one two. one two", (2 / 4, 2 / 3, 1, 1)),
    ("A: b, c? D", (1, 1, 1, 1)), ("a, a. a: a?", (1 / 4, 1 / 3, 1 / 2, 1)),
    ("One\nTwo", (1, None, None, None)),  # a line break goes without leaving a blank
    ("a b a b", (1 / 2, 2 / 3, 1, 1)), ("a a! a", (2 / 3, 1, 1, None)), ("", (None,) * 4),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shares"), GRAMS)
def test_shrs_distinct_grams_and_one_minus_them(text, shares):
    for n, share in enumerate(shares, 1):
        assert distinct(text, n) == (share if share is None else pytest.approx(share))
        assert repetition(text, n) == (0 if share is None else pytest.approx(1 - share))


def test_shr_asks_about_each_kept_sentence_in_a_line():
    known = {"pictures": {"q0": {"regions": ["r"], "facts": []}}}
    said = prediction(0, text="A cat\nsits. A cat. A cat sits on it. 2 dogs.")
    (turn,) = shr_asked(known, Question("q0", *"gtptx"[:4], 9, lambda: None), said)
    lines = turn[1].partition("Sentences:\n")[2].partition("\n\n")[0].split("\n")
    assert lines == ["1. A cat sits", "2. A cat sits on it", "3. 2 dogs"]


def problem(choices=(), answer_type="integer", target="7", precision=None):
    details = {
        "question": "How many?", "choices": choices, "answer_type": answer_type,
        "precision": precision,
    }  # fmt: skip
    return Question("p", "g", "t", "How many?", target, 8, lambda: None, details)


THREE = ("red", "green", "blue")
EXTRACTED = [
    # choices, type, target, reply, what is read (None: it cannot be), right
    ((), "integer", "7", "7", "7", True), ((), "integer", "7", "7.", "7", True),
    ((), "integer", "7", "8", "8", False), ((), "integer", "7", " 7\n", "7", True),
    ((), "integer", "7", "7.0", "7", True), ((), "integer", "7", "seven", None, False),
    ((), "integer", "7", "", None, False), ((), "integer", "7", "7 dogs", None, False),
    ((), "integer", "7", "NONE", "", False), ((), "integer", "7", "none.", "", False),
    ((), "integer", "7", "inf", None, False), ((), "integer", "7", "-7", "-7", False),
    ((), "float", "1.50", "1.5", "1.5", False), ((), "float", "1.5", "1.49", "1.5", True),
    ((), "float", "1.5", "1,5", None, False), ((), "float", "1.5", "about 1.5", None, False),
    ((), "text", "cat", "cat", "cat", True), ((), "text", "cat", "Cat", "Cat", False),
    ((), "list", "[1, 2]", "[1, 2]", "[1, 2]", True),
    (THREE, "text", "green", "B", "green", True), (THREE, "text", "green", "(B)", "green", True),
    (THREE, "text", "green", "B.", "green", True), (THREE, "text", "green", "green", "green", True),
    (THREE, "text", "green", "C", "blue", False), (THREE, "text", "green", "NONE", "", False),
    (THREE, "text", "green", "greenish", None, False), (THREE, "text", "green", "D", None, False),
    (THREE, "text", "green", "A or B", None, False), (THREE, "text", "green", "", None, False),
]  # fmt: skip


@pytest.mark.parametrize(("choices", "kind", "target", "reply", "want", "right"), EXTRACTED)
def test_mathvistas_extraction_is_read_strictly(choices, kind, target, reply, want, right):
    question = problem(choices, kind, target, 1 if kind == "float" else None)
    found = read(reply, question, unread())
    assert (found and found.extracted) == want
    if found:
        assert (found.score, found.counts["unparsed"]) == (float(right), float(want == ""))


def unread(text="It may be seven or so"):
    scored = official(text, "7", problem().details)
    assert scored.counts["unparsed"] == 1
    return Prediction("p", "g", "t", "How many?", text, "", "7", scored.score, scored.counts)


def test_mathvistas_judge_is_asked_about_what_rules_cannot_read_alone():
    (turn,) = messages(problem(), unread())
    assert turn[0] == "user"
    assert "It may be seven or so" in turn[1]
    assert "a whole number in digits" in turn[1]
    assert "(B) green" in messages(problem(THREE, "text", "green"), unread())[0][1]
    assert messages(problem(), replace(unread(), text=" ")) is None
    rules = official("7", "7", problem().details)
    parsed = replace(unread(), score=rules.score, counts=rules.counts)
    assert messages(problem(), parsed) is None


def test_braces_in_an_answer_stay():
    assert "{question} {x}" in messages(problem(), unread("{question} {x}"))[0][1]


# --- from verdicts to scores


def prediction(number, type="rec", text="A cat. A dog."):
    return Prediction(f"q{number}", f"g{number}", type, "?", text, "", "cat", None)


def judgement(number, repeat, **counts):
    counts = {name: float(value) for name, value in counts.items()}
    return Judgement(f"q{number}", repeat, "", "", next(iter(counts.values()), None), counts)


def table(kind, found, judgements):
    names = {"model": "base", "benchmark": kind, "protocol": "p"}
    out = judged_scores(OFFICIAL[kind](kind=kind), found, judgements, names)
    return {(one.split, one.metric): one for one in out}


def test_mmvet_by_hand_with_repeats_and_an_answer_that_nobody_could_judge():
    found = [prediction(0, "rec"), prediction(1, "ocr_math"), prediction(2, "rec_math"),
             prediction(3, "rec")]  # fmt: skip
    said = [(0, 0, 0.5), (0, 1, 1.0), (1, 0, 0.2), (1, 1, 0.0), (2, 0, 1.0)]
    judgements = [judgement(n, r, score=score, judged=1) for n, r, score in said]
    judgements += [judgement(2, 1), judgement(3, 0), judgement(3, 1)]
    got = table("mmvet", found, judgements)
    # means: q0 0.75, q1 0.1, q2 1.0; q3 enters no score
    assert got["all", "score"].value == pytest.approx(100 * (0.75 + 0.1 + 1) / 3)
    assert got["all", "score"].n == 3
    assert got["rec", "score"].value == pytest.approx(87.5)
    assert got["math", "score"].value == pytest.approx(55)
    assert got["ocr", "score"].value == pytest.approx(10)
    assert got["only_ocr_math", "score"].value == pytest.approx(10)
    assert got["only_rec", "score"].value == pytest.approx(75), "one capability alone is one, too"
    assert ("know", "score") not in got
    # repeats: (0.5 + 0.2 + 1) / 3 and (1 + 0) / 2
    first, second = 170 / 3, 50
    assert got["all", "score"].spread == pytest.approx((first - second) / 2)
    assert got["all", "unjudged"].value == pytest.approx(100 * (0.5 + 1) / 4)
    assert got["all", "unjudged"].n == 4


COMBINATIONS = (
    "rec_know_gen", "rec", "ocr_spat", "ocr_spat_math", "rec_spat", "ocr", "ocr_math", "rec_know",
    "rec_ocr_know_gen", "rec_ocr_gen_spat", "rec_ocr_spat", "rec_ocr", "ocr_know_spat",
    "rec_know_spat", "ocr_gen_spat", "rec_ocr_spat_math",
)  # fmt: skip
"""The 16 of MM-Vet's paper; mm-vet_evaluator.py scores each, a capability alone as well."""


def test_mmvet_scores_every_combination_and_a_capability_alone():
    found = [prediction(n, name) for n, name in enumerate(COMBINATIONS)]
    said = [judgement(n, 0, score=n / 20, judged=1) for n in range(len(found))]
    got = table("mmvet", found, said)
    combinations = {split: s.value for (split, _), s in got.items() if split.startswith("only_")}
    assert combinations == {
        f"only_{name}": pytest.approx(5 * n) for n, name in enumerate(COMBINATIONS)
    }
    alone = [n for n, name in enumerate(COMBINATIONS) if "ocr" in name.split("_")]
    assert got["ocr", "score"].value == pytest.approx(5 * sum(alone) / len(alone))


def test_llava_bench_by_hand():
    found = [prediction(0, "conv"), prediction(1, "conv"), prediction(2, "complex")]
    said = [(0, 8, 4), (1, 10, 8), (2, 9, 9)]
    judgements = [judgement(n, 0, model=m, reference=r, judged=1) for n, r, m in said]
    got = table("llava_bench", found, judgements)
    assert got["all", "relative"].value == pytest.approx(100 * 21 / 27)
    assert got["conv", "relative"].value == pytest.approx(100 * 12 / 18)
    assert got["complex", "relative"].value == pytest.approx(100)
    assert got["all", "model"].value == pytest.approx(70)
    assert got["all", "reference"].value == pytest.approx(90)
    assert got["all", "relative"].spread is None


def test_shr_by_hand_counts_what_cannot_be_judged_below():
    texts = ("A. B. A c.", "C.", "")
    found = [prediction(n, "describe", text) for n, text in enumerate(texts)]
    labels = ([H, N, C], [C])
    verdicts = [scored(p.text, some) for p, some in zip(found, labels, strict=False)]
    judgements = [
        Judgement(p.sample_id, 0, "", v.extracted, v.score, v.counts)
        for p, v in zip(found, verdicts, strict=False)
    ]
    silent = described("", "", {})
    found[2] = replace(found[2], score=silent.score, counts=silent.counts)
    got = table("shr", found, judgements)
    assert got["all", "shr"].value == pytest.approx(100 * 1 / 4)
    assert got["all", "cannot_judge"].value == pytest.approx(25)
    assert got["all", "sentences"].value == pytest.approx(4 / 3)
    assert got["all", "words"].value == pytest.approx((1 + 1 + 2 + 1) / 3)
    assert got["all", "repetition_1"].value == pytest.approx(100 * (1 / 4) / 3)
    assert got["all", "shr"].better == "lower"
    assert described("A.", "", {}).score is None


def test_without_any_verdict_there_is_no_score_but_what_was_missed():
    got = table("mmvet", [prediction(0)], [judgement(0, 0)])
    assert set(got) == {("all", "unjudged")}
    assert got["all", "unjudged"].value == 100


def test_what_has_no_verdict_stays_as_the_rules_left_it():
    found = [unread()]
    (kept,) = settled(found, [Judgement("p", 0, "?", "", None)])
    assert kept == found[0]
    got = table("mathvista", found, [Judgement("p", 0, "?", "", None)])
    assert got["all", "accuracy"].value == 0
    assert got["all", "unparsed"].value == 100
    assert got["all", "unjudged"].value == 100


def test_an_extraction_by_a_judge_counts_as_one_by_rules():
    verdict = read("7", problem(), unread())
    said = Judgement("p", 0, "7", verdict.extracted, verdict.score, verdict.counts)
    got = table("mathvista", [unread()], [said])
    assert (got["all", "accuracy"].value, got["all", "unparsed"].value) == (100, 0)


def test_models_are_compared_on_what_was_judged_for_both():
    before = [replace(prediction(n), score=0.5, counts={"judged": 1.0}) for n in range(4)]
    after = [replace(one, score=1.0) for one in before]
    before[1] = replace(before[1], score=None, counts={})
    after[2] = replace(after[2], score=None, counts={})
    kept = scored_in_both(before, after)
    assert [[one.sample_id for one in some] for some in kept] == [["q0", "q3"]] * 2
    assert scored_in_both(before[1:2], after[1:2]) == ([], [])


def test_scores_do_not_depend_on_the_order():
    found = [prediction(n, "rec") for n in range(5)]
    judgements = [judgement(n, r, score=(n + r) / 7, judged=1) for n in range(5) for r in (0, 1)]
    assert table("mmvet", found, judgements) == table("mmvet", found[::-1], judgements[::-1])


# --- what is asked


def test_the_temperature_rises_by_a_half_for_each_reply_that_cannot_be_read():
    benchmark = OFFICIAL["mmvet"](kind="mmvet")
    judging = benchmark.judgings["own"](benchmark, None)

    def heats(**fields):
        judge = Judge(model="j", **fields)
        return [judge.query(judging, (("user", "?"),), 0, i).temperature for i in range(4)]

    assert heats() == [0, 0.5, 1, 1.5]
    assert heats(temperature=0.7) == [0.7, 1.2, 1.7, 2.0]
    assert heats(temperature=2.0) == [2.0] * 4


def test_a_protocols_name_tells_judge_way_and_temperature(samples):
    def label(own=False, **fields):
        return Judge(**fields).label(OFFICIAL["mmvet"](kind="mmvet").judging(samples, own))

    assert label(model="gpt-4-0613") == "+gpt-4-0613"
    assert label(model="gpt-4-0613", own=True) == "+own.gpt-4-0613"
    assert label(model="m", temperature=0.5) == "+m.t0.5"
    assert label(model="m", max_tokens=9, temperature=0.5) == "+m.t0.5.m9"
    assert label(model="m", max_tokens=3, temperature=0) == "+m", "those are MM-Vet's own"
