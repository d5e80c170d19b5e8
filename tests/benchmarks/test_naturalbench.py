"""NaturalBench: answers and the four accuracies, by hand and written out."""

from __future__ import annotations

import random

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.naturalbench import FIRST, WORDS
from seva_exp.benchmarks.question import Question
from seva_exp.benchmarks.statistics import deltas
from seva_exp.core.records import Prediction

from .written_out import interval, shuffled, table, values

BENCHMARK = OFFICIAL["naturalbench"](kind="naturalbench")


def said(group: int, place: int, text: str, type_: str = "yes_no") -> Prediction:
    target = WORDS[type_][not FIRST[place]]
    details = {"type": type_, "question": str(place // 2), "picture": str(place % 2)}
    id = f"{4 * group + place}"
    return BENCHMARK.predict(
        Question(id, f"{group:06d}", type_, "", target, 8, None, details), text
    )


ANSWERS = [  # (type, what was said, read as) by naturalbench_vqa.py: extract_answer
    ("yes_no", "Yes", "Yes"), ("yes_no", "No", "No"), ("yes_no", "yes.", "Yes"),
    ("yes_no", "NO", "No"), ("yes_no", "Yes</s>", "Yes"), ("yes_no", "", ""),
    ("yes_no", "Yes, not no.", "Yes"), ("yes_no", "No, yes", "No"), ("yes_no", "nope", ""),
    ("yes_no", "Not at all", ""), ("yes_no", "There is no dog", "No"), ("yes_no", "eyes", ""),
    ("yes_no", "yes_no", ""),  # an underscore is part of a word
    ("yes_no", "yes-no", "Yes"), ("yes_no", "\n(no)", "No"), ("yes_no", "maybe", ""),
    ("yes_no", "是", ""), ("yes_no", "yes是", ""),  # so is a Chinese character
    ("multiple_choice", "A", "A"), ("multiple_choice", "b", "B"),
    ("multiple_choice", "B: foggy", "B"), ("multiple_choice", "(A)", "A"),
    ("multiple_choice", "A dog", "A"),  # the article, as there
    ("multiple_choice", "It is a B", "A"), ("multiple_choice", "Option B.", "B"),
    ("multiple_choice", "The answer is B, not A.", "B"), ("multiple_choice", "C", ""),
    ("multiple_choice", "AB", ""), ("multiple_choice", "foggy", ""),
    ("multiple_choice", "yes", ""), ("multiple_choice", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "text", "read_as"), ANSWERS)
def test_the_word_that_comes_first_is_the_answer(type_, text, read_as):
    first, second = (said(0, place, text, type_) for place in (0, 1))
    assert (first.extracted, second.extracted) == (read_as, read_as)
    assert first.score == (read_as == WORDS[type_][0])
    assert second.score == (read_as == WORDS[type_][1])
    assert first.counts["unparsed"] == (not read_as)


GROUPS = [  # right in q0i0, q0i1, q1i0, q1i1 -> questions, pictures, group (get_scores)
    ((1, 1, 1, 1), 2, 2, 1), ((1, 1, 0, 0), 1, 0, 0), ((1, 0, 1, 0), 0, 1, 0),
    ((0, 0, 0, 0), 0, 0, 0), ((1, 1, 1, 0), 1, 1, 0), ((0, 1, 1, 1), 1, 1, 0),
    ((1, 0, 0, 1), 0, 0, 0), ((0, 1, 1, 0), 0, 0, 0), ((0, 1, 0, 1), 0, 1, 0),
    ((0, 0, 1, 1), 1, 0, 0),
]  # fmt: skip


def group(number: int, right: tuple[int, ...]) -> list[Prediction]:
    pairs = zip(right, FIRST, strict=True)
    texts = [WORDS["yes_no"][first != bool(ok)] for ok, first in pairs]
    return [said(number, place, text) for place, text in enumerate(texts)]


@pytest.mark.parametrize(("right", "questions", "pictures", "whole"), GROUPS)
def test_a_groups_scores_by_hand(right, questions, pictures, whole):
    predictions = group(0, right)
    assert [one.score for one in predictions] == [float(ok) for ok in right]
    found = values(BENCHMARK, predictions)
    assert found["all", "accuracy"] == 25.0 * sum(right)
    assert found["all", "q_acc"] == 50.0 * questions
    assert found["all", "i_acc"] == 50.0 * pictures
    assert found["all", "g_acc"] == 100.0 * whole


def test_ten_groups_together_and_what_n_counts():
    predictions = [one for i, (right, *_) in enumerate(GROUPS) for one in group(i, right)]
    found = table(BENCHMARK, predictions)
    want = {"accuracy": (55.0, 40), "q_acc": (30.0, 20), "i_acc": (30.0, 20), "g_acc": (10.0, 10)}
    assert {name: (found["all", name].value, found["all", name].n) for name in want} == want


def official(groups) -> dict[str, float]:
    """The official formulas (naturalbench_vqa.py: get_scores), written out."""
    counts = dict.fromkeys(("accuracy", "q_acc", "i_acc", "g_acc"), 0.0)
    for some in groups:
        a, b, c, d = (one.score == 1 for one in sorted(some, key=lambda one: int(one.sample_id)))
        counts["accuracy"] += 100 * (a + b + c + d) / 4
        counts["q_acc"] += 100 * ((a and b) + (c and d)) / 2
        counts["i_acc"] += 100 * ((a and c) + (b and d)) / 2
        counts["g_acc"] += 100 * (a and b and c and d)
    return {name: value / len(groups) for name, value in counts.items()}


def drawn(seed: int, groups: int = 25) -> list[Prediction]:
    """Answers that a group's luck makes alike, some neither yes nor no."""
    rng, found = random.Random(seed), []
    for number in range(groups):
        luck = rng.random()
        right = tuple(int(rng.random() < 0.3 + 0.65 * luck) for _ in range(4))
        found += group(number, right)
    found[3] = said(0, 3, "perhaps")
    return found


@pytest.mark.parametrize("seed", range(4))
def test_scores_and_intervals_are_those_written_out(seed):
    """Groups of two pictures are drawn."""
    predictions = drawn(seed)
    found = table(BENCHMARK, predictions)
    groups: dict[str, list] = {}
    for one in predictions:
        groups.setdefault(one.group, []).append(one)
    want = official([*groups.values()])
    for name, value in want.items():
        score = found["all", name]
        assert score.value == pytest.approx(value)
        low_high = interval(predictions, lambda some, name=name: official(some)[name])
        assert (score.low, score.high) == pytest.approx(low_high)
    assert table(BENCHMARK, shuffled(predictions)) == found


def test_mcnemars_test_is_of_groups_alone():
    """Only they are independent units."""
    before, after = drawn(0), drawn(1)
    found = {
        delta.metric: delta for delta in deltas(BENCHMARK.metrics, before, after, benchmark="b")
    }
    assert found["g_acc"].mcnemar_p is not None
    assert [found[name].mcnemar_p for name in ("accuracy", "q_acc", "i_acc")] == [None] * 3
    assert {delta.groups for delta in found.values()} == {25}


# Files


def test_a_group_has_two_pictures_and_two_questions(samples):
    groups: dict[str, list[Question]] = {}
    for one in BENCHMARK.questions(samples):
        groups.setdefault(one.group, []).append(one)
    assert len(groups) == 11
    for some in groups.values():
        assert [q.details["picture"] for q in some] == ["0", "1", "0", "1"]
        assert len({q.picture for q in some}) == 2
        assert some[0].picture == some[2].picture
        assert some[0].prompt == some[1].prompt
        assert [q.target == some[0].target for q in some] == [True, False, False, True]


def test_rows_in_another_order_are_the_same_groups(samples, tmp_path):
    """VLMEvalKit sorts them by index."""
    import csv

    name = "naturalbench/NaturalBenchDataset.tsv"
    csv.field_size_limit(1 << 30)
    with (samples / name).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    (tmp_path / name).parent.mkdir()
    with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([header, *random.Random(3).sample(rows, 44)])
    facts = [
        [(q.id, q.group, q.prompt, q.target, q.picture) for q in BENCHMARK.questions(root)]
        for root in (samples, tmp_path)
    ]
    assert facts[0] == facts[1]


@pytest.mark.parametrize(
    ("protocol", "prompt"),
    [
        ("llava15", "imageA?Please answer Yes or No."),
        ("vlmevalkit", "imageA? Please answer Yes or No."),
    ],
)
def test_the_instruction_is_the_official_one(protocol, prompt):
    """Glued to the question, as there; VLMEvalKit has a blank."""
    rules = OFFICIAL["naturalbench"](kind="naturalbench", protocol=protocol).rules_of_protocol
    texts = {"question": "imageA?", "instruction": "Please answer Yes or No."}
    assert rules.render(texts) == prompt
