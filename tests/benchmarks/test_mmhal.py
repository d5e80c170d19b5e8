"""MMHal-Bench: the judge's question and reply, mean rating and hallucinations, by hand."""

from __future__ import annotations

import random

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.judge_answers import settled
from seva_exp.benchmarks.mmhal import OWN_PROMPT, TYPES, messages, read, read_rating
from seva_exp.benchmarks.question import Question
from seva_exp.core.records import Judgement, Prediction

from .written_out import interval, shuffled, table, values

BENCHMARK = OFFICIAL["mmhal"](kind="mmhal")


def asked(id: str = "0", type_: str = "counting") -> Question:
    details = {"question": "How many?", "content": "Cat, Mat"}
    return Question(id, id, type_, "How many? Be brief.", "Two {cats}.", 8, None, details)


REPLIES = [  # by eval_gpt_mmhal.py: exactly one of "rating: 0" to "rating: 6" in lower case
    ("Rating: 6", 6), ("rating: 0", 0), ("- Rating: 5, very informative, no hallucination", 5),
    ("It makes nothing up.\nRating: 3, not informative", 3), ("RATING: 2", 2), ("Rating: 4.", 4),
    ("**Rating: 1**", 1), ("Rating: 6\nRating: 6", 6), ("My rating: 5", 5), ("Rating: 10", 1),
    ("Rating: 3.5", 3), ("Rating: 66", 6), ("Explanation: good.\n\nRating: 4", 4),
    ("Rating: 6 or Rating: 5", None), ("Rating: 2, not Rating: 3", None), ("Rating: 7", None),
    ("Rating:6", None), ("Rating:  6", None), ("Rating : 6", None), ("Rating: **6**", None),
    ("6", None), ("", None), ("Rating: six", None), ("Rating: -1", None), ("Score: 5", None),
    ("评分: 5", None), ("Rating： 5", None), ("Rating: (5)", None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "rating"), REPLIES)
def test_a_rating_is_read_as_the_official_script_does(reply, rating):
    """What it counts as 0 with a warning is asked again here, and at last left out."""
    assert read_rating(reply) == rating
    found = read(reply, asked(), BENCHMARK.predict(asked(), "One."))
    assert (found.extracted if found else None) == (None if rating is None else str(rating))


@pytest.mark.parametrize(
    ("rating", "hallucinated", "informative"),
    [(0, 1, 0), (1, 1, 1), (2, 1, 2), (3, 0, 0), (4, 0, 1), (5, 0, 2), (6, 0, 3)],
)
def test_what_a_rating_says(rating, hallucinated, informative):
    """Below 3 is a hallucination; s - 3 from there on (summarize_gpt_mmhal_review.py)."""
    found = read(f"Rating: {rating}", asked(), BENCHMARK.predict(asked(), "One."))
    assert found.score == rating / 6
    counts = found.counts
    assert (counts["rating"], counts["hallucinated"]) == (rating, hallucinated)
    assert counts["informative"] == informative


def rated(rows: list[tuple[str, int]]) -> list[Prediction]:
    """Answers as a judge stage leaves them, of (type, rating)."""
    questions = [asked(str(i), type_) for i, (type_, _) in enumerate(rows)]
    said = [BENCHMARK.predict(q, "One.") for q in questions]
    verdicts = []
    for question, one, (_, rating) in zip(questions, said, rows, strict=True):
        scored = read(f"Rating: {rating}", question, one)
        found = (scored.extracted, scored.score, scored.counts)
        verdicts.append(Judgement(question.id, 0, "", *found))
    return settled(said, verdicts)


def test_mean_rating_and_hallucinations_by_hand():
    rows = [("counting", 6), ("counting", 2), ("holistic", 3), ("holistic", 0), ("other", 5)]
    found = values(BENCHMARK, rated(rows))
    assert found["all", "rating"] == 3.2
    assert found["all", "hallucination"] == 40.0
    assert found["all", "informativeness"] == round(100 * (3 + 2 + 0 + 0 + 2) / 15, 2)
    assert (found["counting", "rating"], found["counting", "hallucination"]) == (4.0, 50.0)
    assert (found["holistic", "rating"], found["holistic", "hallucination"]) == (1.5, 50.0)
    assert (found["other", "rating"], found["other", "hallucination"]) == (5.0, 0.0)
    assert ("attribute", "rating") not in found


@pytest.mark.parametrize("seed", range(3))
def test_intervals_are_those_written_out(seed):
    rng = random.Random(seed)
    predictions = rated([(TYPES[i % 8], rng.randint(0, 6)) for i in range(48)])
    found = table(BENCHMARK, predictions)

    def mean(groups) -> float:
        ratings = [int(one.extracted) for group in groups for one in group]
        return sum(ratings) / len(ratings)

    def share(groups) -> float:
        ratings = [int(one.extracted) for group in groups for one in group]
        return 100 * sum(rating < 3 for rating in ratings) / len(ratings)

    for name, value in (("rating", mean), ("hallucination", share)):
        score = found["all", name]
        assert (score.low, score.high) == pytest.approx(interval(predictions, value))
    assert table(BENCHMARK, shuffled(predictions)) == found


def test_the_judge_is_told_what_the_picture_holds_and_braces_stay():
    template = "Contents {}\nQuestion {}\nPerson {}\nModel {} end"
    said = BENCHMARK.predict(asked(), "Three {0} cats")
    ((role, text),) = messages(template, asked(), said)
    assert role == "user"
    assert text == (
        "Contents Cat, Mat\nQuestion How many?\nPerson Two {cats}.\nModel Three {0} cats end"
    )
    ((_, own),) = messages(OWN_PROMPT, asked(), said)
    assert "Answer to rate: Three {0} cats\n" in own
    assert own.endswith("Rating: 0 (hallucination; not informative)")


def test_the_release_is_read_and_pictures_may_bear_their_ids(samples, tmp_path):
    import shutil

    root = shutil.copytree(samples / "mmhal", tmp_path / "mmhal").parent
    before = list(BENCHMARK.questions(root))
    assert before[0].type == "attribute"
    assert before[8].type == "attribute"
    for file in (root / "mmhal" / "images").iterdir():
        file.rename(file.with_name(file.name.replace("_o", "")))
    after = list(BENCHMARK.questions(root))
    assert [q.id for q in after] == [q.id for q in before]
    assert after[0].load().size == (72, 72)
