"""MMStar, MMVP, CV-Bench: letters by their authors' rules, means and pairs, by hand and written
out."""

from __future__ import annotations

import random

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.letters import leading_letter
from seva_exp.benchmarks.mmvp import bare_answer, letter_or_option
from seva_exp.benchmarks.question import Question
from seva_exp.core.records import Prediction

from .written_out import interval, shuffled, table, values

OPTIONS = {"A": "Dusk", "B": "Noon", "C": "Night", "D": "Dawn"}
MMSTAR = OFFICIAL["mmstar"](kind="mmstar")
MMVP = OFFICIAL["mmvp"](kind="mmvp")
CV_BENCH = OFFICIAL["cv_bench"](kind="cv_bench")


def said(benchmark, id: str, group: str, type_: str, right: bool) -> Prediction:
    details = {"options": OPTIONS}
    asked = Question(id, group, type_, "", "B", 8, None, details)
    return benchmark.predict(asked, "B" if right else "C")


# MMStar

LETTERS = [  # by eval/vlmeval/evaluate/mmstar.py
    ("B", "B"), ("b", "B"), (" B\n", "B"), ("B. Noon", "B"), ("(B)", "B"), ("(b) noon", "B"),
    ("Option B", "B"), ("option b is right", "B"), ("The answer is B", "B"),
    ("the answer is b.", "B"), ("Option\nB", "B"), ("A dog", "A"), ("Because it is B", "B"),
    ("Noon", ""), ("", ""), ("The answer is: B", ""), ("The answer is (B)", ""), ("[B]", ""),
    ("Options B", ""), ("Answer: B", "A"), ("E", ""), ("( B)", ""), ("**B**", ""),
    ("Option  B", ""), ("Dawn", "D"), ("Certainly", "C"), ("B or C", "B"), ("答案是B", ""),
    ("((B)", ""), ("2", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "letter"), LETTERS)
def test_mmstars_letter_is_where_its_script_looks(text, letter):
    assert leading_letter(text, OPTIONS) == letter


def test_mmstars_scores_are_by_category_and_part():
    """Pooled over all 1,500, which the six categories' equal sizes make their mean."""
    rows = [("math/geometry", 3, 4), ("math/statistical reasoning", 0, 2), ("logic/common", 1, 1)]
    predictions = [
        said(MMSTAR, f"{type_}{i}", f"{type_}{i}", type_, i < right)
        for type_, right, asked in rows
        for i in range(asked)
    ]
    found = values(MMSTAR, predictions)
    assert found["all", "accuracy"] == round(400 / 7, 2)
    assert found["math", "accuracy"] == 50.0
    assert found["math/geometry", "accuracy"] == 75.0
    assert found["math/statistical reasoning", "accuracy"] == 0.0
    assert found["logic", "accuracy"] == found["logic/common", "accuracy"] == 100.0


def written_table(tmp_path, name: str, **row):
    from seva_exp.benchmarks.samples.cases import cases, write_table

    write_table(tmp_path / name, [{"index": 0, "image": cases(1)[0].base64, **row}])
    return tmp_path


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("When?\nOptions: A: Dusk, B: Noon, late, C: Night", ["Dusk", "Noon, late", "Night"]),
        ("When?\nOptions:\nA. Dusk\nB. Noon", ["Dusk", "Noon"]),
        ("When? Options: A: Dusk, B: 1: 2", ["Dusk", "1: 2"]),
    ],
)
def test_mmstars_options_may_end_the_question(tmp_path, question, options):
    """As in its release on the hub; VLMEvalKit's table has columns."""
    row = {"question": question, "answer": "B", "category": "math", "l2_category": "geometry"}
    (asked,) = MMSTAR.questions(written_table(tmp_path, "MMStar.tsv", **row))
    assert asked.details["options"] == dict(zip("ABC", options, strict=False))
    assert asked.type == "math/geometry"
    listed = "\n".join(f"{letter}. {text}" for letter, text in asked.details["options"].items())
    instruction = "Answer with the option's letter from the given choices directly."
    assert asked.prompt == f"When?\n{listed}\n{instruction}"


# MMVP

BARE = [  # by Cambrian-1's mmvp_test.py: extract_mcq_answer
    ("B", "b"), ("(b)", "b"), ("(B) Noon", "b) noon"), ("b.", "b"), ("B,", "b"), ("b:", "b"),
    ("Noon", "noon"), ("noon.", "noon"), ("The answer is B", "b"), ("the answer is (b).", "b"),
    ("The answer is: B", ": b"),  # as there
    ("Answer: B", "b"), ("Answer: (B)", "b"), ("", ""), ("B. Noon", "b. noon"),
    ("answer is A. No, answer is B", "b"), ("My answer: noon", "noon"), ("((b))", "b"),
    (" b \n", "b"), ("b)", "b"), ("[b]", "[b]"), ("B!", "b!"), ("b ,", "b "),
    ("Option B", "option b"), ("answer:answer: b", "b"), ("是B", "是b"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "bare"), BARE)
def test_cambrians_rule_strips_an_answer(text, bare):
    assert bare_answer(text) == bare


@pytest.mark.parametrize(
    ("text", "read_as", "right"),
    [
        ("(b)", "B", 1),
        ("noon", "B", 1),
        ("Dusk.", "A", 0),
        ("c", "C", 0),
        ("so", "", 0),
        ("", "", 0),
    ],
)
def test_cambrians_rule_takes_a_letter_or_an_option(text, read_as, right):
    found = letter_or_option(text, "B", {"options": OPTIONS})
    assert (found.extracted, found.score, found.counts["unparsed"]) == (read_as, right, not read_as)


def pairs(right: list[tuple[int, int]]) -> list[Prediction]:
    return [
        said(MMVP, f"{2 * i + j}", f"{i:04d}", "all", bool(ok))
        for i, pair in enumerate(right)
        for j, ok in enumerate(pair)
    ]


@pytest.mark.parametrize(
    ("right", "both", "single"),
    [
        ([(1, 1)], 100.0, 100.0),
        ([(1, 0)], 0.0, 50.0),
        ([(0, 1)], 0.0, 50.0),
        ([(0, 0)], 0.0, 0.0),
        ([(1, 1), (0, 1), (1, 0), (0, 0)], 25.0, 50.0),
        ([(0, 1), (1, 0)], 0.0, 50.0),  # two rights in a row are no pair
    ],
)
def test_a_pair_needs_both(right, both, single):
    found = table(MMVP, pairs(right))
    assert found["all", "pair_accuracy"].value == both
    assert found["all", "accuracy"].value == single
    assert found["all", "pair_accuracy"].n == len(right)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_intervals_are_those_written_out(seed):
    rng = random.Random(seed)
    predictions = pairs([(rng.random() < 0.8, rng.random() < 0.7) for _ in range(30)])
    found = table(MMVP, predictions)["all", "pair_accuracy"]

    def share(groups) -> float:
        return 100 * sum(all(p.score == 1 for p in group) for group in groups) / len(groups)

    assert (found.low, found.high) == pytest.approx(interval(predictions, share))
    assert table(MMVP, shuffled(predictions))["all", "pair_accuracy"] == found


def test_mmvps_release_is_read(samples, tmp_path):
    """Its header begins with lndex; blanks within the options vary."""
    questions = list(MMVP.questions(samples))
    assert [q.group for q in questions[:4]] == ["0000", "0000", "0001", "0001"]
    assert [q.target for q in questions[:4]] == ["A", "B", "A", "B"]
    assert questions[0].picture != questions[1].picture
    assert questions[0].details["options"] == {"A": "Yes", "B": "No"}
    cambrian = OFFICIAL["mmvp"](kind="mmvp", protocol="cambrian")
    first = next(iter(cambrian.questions(samples)))
    end = (
        "Options:\nA. Yes\nB. No\nAnswer with the option's letter from the given choices directly."
    )
    assert first.prompt.endswith(f"? {end}")


def test_mmvps_table_is_sorted_by_index(tmp_path):
    from seva_exp.benchmarks.samples.cases import cases, write_table

    pictures = [case.base64 for case in cases(4)]
    rows = [
        {"index": i, "question": f"{i // 2}?", "A": "x", "B": "y", "answer": "AB"[i % 2],
         "image": pictures[i]}
        for i in (10, 9, 1, 0) if i < 4
    ] + [{"index": i, "question": "1?", "A": "x", "B": "y", "answer": "AB"[i % 2],
          "image": pictures[i - 8]} for i in (11, 10)]  # fmt: skip
    write_table(tmp_path / "MMVP.tsv", rows)
    found = [(q.id, q.group, q.target) for q in MMVP.questions(tmp_path)]
    assert found == [
        ("0", "0000", "A"),
        ("1", "0000", "B"),
        ("10", "0001", "A"),
        ("11", "0001", "B"),
    ]


# CV-Bench


def test_cv_benchs_means_by_hand():
    """2D (75 + 50) / 2; 3D 20; all (62.5 + 20) / 2, whatever the sizes."""
    rows = [
        ("ADE20K: Count", 2, 2), ("ADE20K: Relation", 1, 2), ("COCO: Count", 5, 10),
        ("Omni3D: Depth", 1, 4), ("Omni3D: Distance", 0, 1),
    ]  # fmt: skip
    predictions = [
        said(CV_BENCH, f"{type_}{i}", f"{type_}{i}", type_, i < right)
        for type_, right, asked in rows
        for i in range(asked)
    ]
    found = values(CV_BENCH, predictions)
    assert found["all", "accuracy"] == 41.25
    assert (found["2D", "accuracy"], found["3D", "accuracy"]) == (62.5, 20.0)
    sources = [found[name, "accuracy"] for name in ("ADE20K", "COCO", "Omni3D")]
    assert sources == [75.0, 50.0, 20.0]
    assert found["Count", "accuracy"] == round(700 / 12, 2)
    assert (found["Relation", "accuracy"], found["Depth", "accuracy"]) == (50.0, 25.0)
    assert table(CV_BENCH, predictions)["all", "accuracy"].n == 19
    part = [one for one in predictions if not one.type.startswith("COCO")]
    assert ("all", "accuracy") not in values(CV_BENCH, part), "no mean of half of it"
    assert values(CV_BENCH, part)["3D", "accuracy"] == 20.0


@pytest.mark.parametrize("seed", range(3))
def test_cv_benchs_intervals_are_those_written_out(seed):
    """Pictures are drawn, some of which are asked twice."""
    rng = random.Random(seed)
    types = ["ADE20K: Count", "COCO: Relation", "Omni3D: Depth"]
    predictions = [
        said(CV_BENCH, f"{i}-{j}", f"{i:03d}", types[i % 3], rng.random() < 0.6)
        for i in range(45)
        for j in range(1 + i % 2)
    ]

    def mean(groups) -> float:
        found = []
        for type_ in types:
            scores = [p.score for group in groups for p in group if p.type == type_]
            found.append(100 * sum(scores) / len(scores))
        return ((found[0] + found[1]) / 2 + found[2]) / 2

    score = table(CV_BENCH, predictions)["all", "accuracy"]
    assert score.value == pytest.approx(mean([[one] for one in predictions]))
    assert (score.low, score.high) == pytest.approx(interval(predictions, mean))
    assert table(CV_BENCH, shuffled(predictions))["all", "accuracy"] == score


ANSWERS = [  # letter_or_text on CV-Bench's choices, by the official rule: the letter, or its text
    ("B", 1), ("(B)", 1), ("B.", 1), ("(B) Noon", 1), ("B. Noon", 1), ("Noon", 1), ("noon.", 1),
    ("The answer is B", 1), ("The answer is (B).", 1), ("Answer: B", 1), ("**B**", 1),
    ("option B", 1), ("A", 0), ("(C)", 0), ("Night", 0), ("", 0), ("A or B", 0), ("b", 0),
    ("It is noon there", 0), ("E", 0), ("Noon or night", 0), ("A dog", 0), ("2", 0), ("B、", 1),
    ("答案是B", 1), ("B</s>", 0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "right"), ANSWERS)
def test_cv_benchs_answer_is_a_letter_or_its_choice(text, right):
    asked = Question("0", "g", "COCO: Count", "", "B", 8, None, {"options": OPTIONS})
    assert CV_BENCH.predict(asked, text).score == right


def test_both_tables_of_cv_bench_are_read(tmp_path):
    from seva_exp.benchmarks.samples.cases import cases, write_table
    from seva_exp.core.errors import InputError

    held = {"index": 0, "question": "Q?", "A": "x", "B": "y", "image": cases(1)[0].base64}
    row = held | {"answer": "(B)", "prompt": "Q? Pick.\n(A) x\n(B) y", "task": "Count"}
    write_table(tmp_path / "CV-Bench-2D.tsv", [row | {"source": "COCO"}])
    with pytest.raises(InputError, match="CV-Bench-3D"):
        CV_BENCH.check(tmp_path)
    write_table(tmp_path / "CV-Bench-3D.tsv", [row | {"source": "Omni3D", "task": "Depth"}])
    found = list(CV_BENCH.questions(tmp_path))
    assert [(q.id, q.type, q.target) for q in found] == [
        ("2D-0", "COCO: Count", "B"),
        ("3D-0", "Omni3D: Depth", "B"),
    ]
    kit = OFFICIAL["cv_bench"](kind="cv_bench", protocol="vlmevalkit")
    assert next(iter(kit.questions(tmp_path))).prompt == "Q? Pick.\n(A) x\n(B) y"
