"""HallusionBench: answers, verdicts, and its three accuracies, by hand and written out."""

from __future__ import annotations

import random

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.hallusionbench import messages, read, verdict
from seva_exp.benchmarks.question import Question
from seva_exp.core.records import Prediction

from .written_out import interval, shuffled, table, values

BENCHMARK = OFFICIAL["hallusionbench"](kind="hallusionbench")


def asked(place: str, target: str = "yes") -> Question:
    """A question by its VLMEvalKit index."""
    category, sub, seen, set_id, figure, number = place.split("_")
    details = {
        "question": "Is it?",
        "truth": "It is.",
        "visual_input": seen,
        "figure_id": figure,
        "question_id": number,
        "no_figure": category == "VS" and figure == "0",
    }
    group = f"{category}_{sub}_{set_id}"
    return Question(place, group, f"{category}_{sub}", "", target, 8, None, details)


def said(place: str, target: str, text: str) -> Prediction:
    return BENCHMARK.predict(asked(place, target), text)


ANSWERS = [  # by VLMEvalKit's yorn.py: YOrN_Extraction, and equality with the target
    ("Yes", "yes", "yes", 1), ("No", "yes", "no", 0), ("yes", "no", "yes", 0),
    ("no", "no", "no", 1), ("YES", "yes", "yes", 1), ("NO.", "no", "no", 1),
    ("Yes.", "yes", "yes", 1), ("Yes, it is.", "yes", "yes", 1), ("No, not so.", "no", "no", 1),
    ("Yes</s>", "yes", "yes", 1),
    ("no!", "no", "no", 1), ("(no)", "no", "no", 1), ("yes and no", "yes", "", 0),
    ("", "no", "", 0), ("1", "yes", "", 0), ("True", "yes", "", 0),
    ("The answer is yes", "yes", "yes", 1), ("I do not know", "no", "", 0),
    ("There is no way to tell, yes?", "yes", "", 0), ("nope", "no", "", 0),
    ("know", "no", "", 0), ("yes yes", "yes", "yes", 1), ("No\nYes", "no", "", 0),
    ("No\nno", "no", "no", 1), ("不是", "no", "", 0), ("Yes\uff0c it is", "yes", "", 0),
    ("It is the same size.", "yes", "", 0), ("answer: no", "no", "no", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "target", "read_as", "right"), ANSWERS)
def test_an_answer_is_yes_no_or_neither(text, target, read_as, right):
    found = said("VD_figure_1_0_0_0", target, text)
    assert (found.extracted, found.score) == (read_as, right)
    assert found.counts["unparsed"] == (not read_as)


REPLIES = [  # (judge, with a figure, VS without one), by utils.py: evaluate_by_chatgpt and
    # assign_correctness; what holds none of the words is "unclear" there, and asked again here
    ("correct", 1, 1), ("incorrect", 0, 0), ("unclear", 0, 1), ("Correct.", 1, 1),
    ("Incorrect.", 0, 0), ("UNCLEAR", 0, 1), ("It is correct", 1, 1), ('"correct"', 1, 1),
    ("not correct", 1, 1),  # as there
    ("incorrect, not correct", 0, 0), ("unclear, perhaps correct", 1, 1),
    ("unclear or incorrect", 0, 0), ("correctly so", 1, 1), ("\nunclear\n", 0, 1),
    ("Output: correct", 1, 1), ("", None, None), ("yes", None, None), ("I cannot say", None, None),
    ("right", None, None), ("clear", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "figure", "none"), REPLIES)
def test_a_judges_reply_is_one_of_three_words(reply, figure, none):
    for place, want in (("VD_ocr_1_0_0_0", figure), ("VS_ocr_0_0_0_0", none)):
        question = asked(place)
        found = read(reply, question, said(place, "yes", "Perhaps"))
        assert (found.score if found else None) == want
        if found:
            assert found.counts["unparsed"] == 0


def test_a_judge_is_asked_what_no_rule_reads():
    question = asked("VD_ocr_1_0_0_0")
    assert messages(question, said("VD_ocr_1_0_0_0", "yes", "Yes")) is None
    assert messages(question, said("VD_ocr_1_0_0_0", "yes", " ")) is None
    ((role, text),) = messages(question, said("VD_ocr_1_0_0_0", "yes", "Both {are} equal"))
    assert role == "user"
    for part in ("Question: Is it?", "What is true: It is.", "Given answer: Both {are} equal"):
        assert part in text


BY_HAND = [  # (index, right?): two sets of VD, one of VS
    ("VD_math_1_0_0_0", 1), ("VD_math_1_0_0_1", 1),  # figure 0: all right
    ("VD_math_2_0_1_0", 1), ("VD_math_2_0_1_1", 0),  # figure 1: not; question 1: not
    ("VD_math_1_1_0_0", 0),  # another set's figure 0 and question 0
    ("VS_map_0_0_0_0", 1), ("VS_map_0_0_0_1", 0),  # no figure: in no fAcc
    ("VS_map_1_0_1_0", 1), ("VS_map_1_0_1_1", 1),
    ("VS_map_2_0_2_0", 0), ("VS_map_2_0_2_1", 1),
]  # fmt: skip


def by_hand(rows) -> list[Prediction]:
    return [said(place, "yes", "Yes" if right else "No") for place, right in rows]


def test_the_three_accuracies_by_hand():
    """aAcc 7 of 11. Figures: VD 0/0, VS 1 of VD 0/0, 0/1, 1/0 and VS 1, 2: 2 of 5. Questions: VD
    0/0 right, 0/1 no, 1/0 no; VS 0 no (figure 2), 1 no (without a figure): 1 of 5."""
    found = values(BENCHMARK, by_hand(BY_HAND))
    assert found["all", "aAcc"] == round(700 / 11, 2)
    assert found["all", "fAcc"] == 40.0
    assert found["all", "qAcc"] == 20.0
    assert found["all", "average"] == round((700 / 11 + 60) / 3, 2)
    assert (found["VD", "aAcc"], found["VD", "fAcc"]) == (60.0, round(100 / 3, 2))
    assert found["VD", "qAcc"] == round(100 / 3, 2)
    assert (found["VS", "fAcc"], found["VS", "qAcc"]) == (50.0, 0.0)
    # easy (no changed figure): VD 0/0 right, 0/1 right, 1/0 no; VS 0 right, 1 no (no figure)
    # hard: VD 0/0 right, 0/1 no; VS 0 no, 1 right
    assert (found["easy", "aAcc"], found["hard", "aAcc"]) == (60.0, 50.0)
    assert found["VS_map", "aAcc"] == round(400 / 6, 2)
    counted = table(BENCHMARK, by_hand(BY_HAND))
    wanted = {"aAcc": 11, "fAcc": 5, "qAcc": 5}
    assert {name: counted["all", name].n for name in wanted} == wanted
    assert (counted["easy", "aAcc"].n, counted["hard", "aAcc"].n) == (5, 4)


def test_a_figure_as_found_beside_a_vs_question_is_easy_and_pairs_with_it():
    """utils.py (744007c) takes for hard what has visual_input 2, whatever its figure_id, and for
    one what is asked alike: VS figure 1 goes with the question that has no figure."""
    rows = [("VS_map_0_0_0_0", 1), ("VS_map_1_0_1_0", 0), ("VS_map_2_0_2_0", 1)]
    rows += [("VS_map_2_0_3_0", 0), ("VS_map_0_1_0_0", 1), ("VS_map_2_1_1_0", 1)]
    found = table(BENCHMARK, by_hand(rows))
    assert (found["easy", "aAcc"].value, found["easy", "aAcc"].n) == (50.0, 2)
    assert (found["hard", "aAcc"].value, found["hard", "aAcc"].n) == (50.0, 2)


def drawn(seed: int, sets: int = 12) -> list[Prediction]:
    """Answers of sets that a set's luck makes alike."""
    rng, rows = random.Random(seed), []
    for number in range(sets):
        category, sub = rng.choice([("VD", "figure"), ("VD", "ocr"), ("VS", "ocr"), ("VS", "map")])
        luck, questions = rng.random(), rng.randint(1, 3)
        for figure in range(rng.randint(1, 3)):
            seen = 0 if category == "VS" and figure == 0 else 1 + (figure > (category == "VS"))
            for q in range(questions):
                place = f"{category}_{sub}_{seen}_{number}_{figure}_{q}"
                rows.append((place, rng.random() < 0.4 + luck / 2))
    return by_hand(rows)


def share_right(groups, key, keep=lambda place: True) -> float:
    """All answers that share a key within one drawn group are right, in percent."""
    right: dict[tuple, bool] = {}
    for copy, group in enumerate(groups):
        for one in group:
            place = one.sample_id.split("_")
            if keep(place):
                name = (copy, *key(place))
                right[name] = right.get(name, True) and one.score == 1
    return 100 * sum(right.values()) / len(right)


def with_figure(place: list[str]) -> bool:
    return not (place[0] == "VS" and place[4] == "0")


WRITTEN = {
    "aAcc": lambda groups: share_right(groups, lambda place: place),
    "fAcc": lambda groups: share_right(groups, lambda p: [*p[:2], p[3], p[4]], with_figure),
    "qAcc": lambda groups: share_right(groups, lambda p: [*p[:2], p[3], p[5]]),
}
LEVELS = {
    "easy": lambda groups: share_right(
        groups, lambda p: [*p[:2], p[3], p[5]], lambda p: p[2] != "2"
    ),
    "hard": lambda groups: share_right(
        groups, lambda p: [*p[:2], p[3], p[5]], lambda p: p[2] == "2"
    ),
}


@pytest.mark.parametrize("seed", range(4))
def test_scores_and_intervals_are_those_written_out(seed):
    """Sets are drawn: their figures share questions."""
    predictions = drawn(seed)
    found = table(BENCHMARK, predictions)
    groups: dict[str, list] = {}
    for one in predictions:
        groups.setdefault(one.group, []).append(one)
    for name, value in WRITTEN.items():
        score = found["all", name]
        assert score.value == pytest.approx(value([*groups.values()]))
        assert (score.low, score.high) == pytest.approx(interval(predictions, value))
    for name, value in LEVELS.items():
        assert found[name, "aAcc"].value == pytest.approx(value([*groups.values()]))
    assert table(BENCHMARK, shuffled(predictions)) == found


def test_repeats_of_a_judge_that_disagree_make_no_figure_right():
    """Judged right once of two times: half an answer, no whole figure."""
    question = asked("VD_ocr_1_0_0_0")
    half = verdict("correct", True, question.details)
    counts = {name: value / 2 if "right" in name else value for name, value in half.counts.items()}
    counts["correct"] = 0.5
    one = Prediction("VD_ocr_1_0_0_0", "VD_ocr_0", "VD_ocr", "", "x", "", "yes", 0.5, counts)
    found = values(BENCHMARK, [one])
    assert (found["all", "aAcc"], found["all", "fAcc"]) == (50.0, 0.0)


# Files


def test_questions_without_a_picture_are_asked_as_text(samples):
    questions = list(BENCHMARK.questions(samples))
    without = [q for q in questions if q.load is None]
    assert len(without) == 8
    assert {q.picture for q in without} == {""}
    assert {q.id[:9] for q in without} == {"VS_table_"}
    groups = {q.group for q in without}
    assert any(q.load and q.group in groups for q in questions), "its set has figures as well"
    shown = {q.picture for q in questions if q.load}
    assert len(shown) == 20


def test_vlmevalkits_protocol_leaves_them_out(samples):
    kit = OFFICIAL["hallusionbench"](kind="hallusionbench", protocol="vlmevalkit")
    questions = list(kit.questions(samples))
    assert len(questions) == 40
    assert all(q.load for q in questions)


def test_a_table_may_hold_rows_without_a_picture(tmp_path):
    from seva_exp.benchmarks.samples.cases import cases, write_table

    row = {"question": "Is it?", "category": "VS", "l2-category": "VS_map"}
    rows = [
        {"index": "VS_map_0_0_0_0", "answer": "No", "image": "", **row},
        {"index": "VS_map_1_0_1_0", "answer": "Yes", "image": cases(1)[0].base64, **row},
    ]
    write_table(tmp_path / "HallusionBench.tsv", rows)
    bare, shown = BENCHMARK.questions(tmp_path)
    assert (bare.load, bare.target, bare.type) == (None, "no", "VS_map")
    assert shown.load().size == (72, 72)
    assert (bare.group, shown.group) == ("VS_map_0", "VS_map_0")
