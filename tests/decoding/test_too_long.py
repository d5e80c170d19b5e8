"""A question that the model's context has no room for: told before it is computed, dropped from the
pairs by name, while all others are answered as without it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from seva_exp.benchmarks.base import Benchmark, Metric, Question, accuracy
from seva_exp.benchmarks.evaluate import MOST_TOO_LONG, ask, conclude
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import TOO_LONG, Placement
from seva_exp.core.progress import progress
from seva_exp.core.records import CLEAN, Prediction
from seva_exp.data import ShapesData
from seva_exp.decoding import HfGeneration
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.hf_generate import Batches
from seva_exp.inputs.views import View
from seva_exp.models.context import answer_limit, context_of, encoded_within
from seva_exp.preferences.pairs import Tally, grouped, make_pairs

from ..preferences.stage import answer_all
from .alone import by_id
from .scenes import SHARED, SINGLE, request

LONG = "What color is the circle? " * 200
HUGE = "what color is it " * 12_000
"""204 KB; tokenised they would be 48,000 tokens, and as tensors more than a machine's memory."""


def engines(vlm):
    return {"own": Engine(vlm, 4), "transformers": Batches(vlm, 4, None, None, False)}


def tokens_of(vlm, question):
    return len(vlm.encode(vlm.encode_image(question.load()), question.prompt).ids)


@pytest.mark.parametrize("name", ["own", "transformers"])
@pytest.mark.parametrize("prompt", [LONG, HUGE], ids=["long", "huge"])
def test_it_is_told_and_the_others_are_answered_as_without_it(vlm, passes, name, prompt):
    """Alone on its picture, first and last of several on one, in the middle of all."""
    for questions in (SINGLE, SHARED):
        without = by_id(engines(vlm)[name].run(questions))
        for at in (0, 3, len(questions) - 1):
            asked = [*questions]
            asked[at] = replace(asked[at], prompt=prompt)
            found = by_id(engines(vlm)[name].run(asked))
            left_out = found.pop(asked[at].id)
            assert (left_out.text, left_out.tokens, left_out.stop) == ("", (), TOO_LONG)
            assert found == {id: r for id, r in without.items() if id != asked[at].id}
    assert max(passes) < 8 * 512, "no pass has more than the others' tokens"


def test_all_may_be_too_long(vlm):
    asked = [replace(one, prompt=LONG) for one in (*SINGLE, *SHARED)]
    asked = [replace(one, id=f"{i}") for i, one in enumerate(asked)]
    for engine in engines(vlm).values():
        assert {reply.stop for reply in by_id(engine.run(asked)).values()} == {TOO_LONG}


def test_a_text_with_more_characters_than_the_context_can_stand_for_is_not_tokenised(
    vlm, monkeypatch
):
    image = vlm.encode_image(SINGLE[0].load())
    assert vlm.longest_token == max(map(len, vlm.processor.tokenizer.get_vocab()))
    monkeypatch.setattr(vlm, "_tokenize", lambda text: pytest.fail("tokenised"))
    assert encoded_within(vlm, image, HUGE) is None


def test_what_just_fits_is_answered_and_its_answer_ends_where_the_context_does(vlm, monkeypatch):
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", 10**6)
    plain = request(0, tokens=24)
    size = tokens_of(vlm, plain)
    text = vlm.model.config.get_text_config()
    for room, stop, made in (
        (0, TOO_LONG, 0),
        (1, TOO_LONG, 1),
        (23, TOO_LONG, 23),
        (24, "length", 24),
    ):
        monkeypatch.setattr(text, "max_position_embeddings", size + room)
        for engine in engines(vlm).values():
            [reply] = by_id(engine.run([plain])).values()
            assert (reply.stop, len(reply.tokens)) == (stop, made), room


def test_a_model_that_does_not_tell_its_context_is_asked_all(vlm, monkeypatch):
    silent = SimpleNamespace()
    monkeypatch.setattr(type(vlm.model.config), "get_text_config", lambda self: silent)
    assert context_of(vlm) is None
    encoded = vlm.encode(vlm.encode_image(SINGLE[0].load()), SINGLE[0].prompt)
    assert encoded_within(vlm, encoded.image, SINGLE[0].prompt) == encoded
    assert answer_limit(vlm, encoded, 24) == 24


# --- from samples to pairs


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(samples of which the fourth is too long, root of their pictures)."""
    folder = tmp_path_factory.mktemp("world")
    data = ShapesData(samples=6)
    made = data.build(0, folder, FileDigests(folder / "store"))
    samples = [*made.samples]
    samples[3] = replace(samples[3], prompt=LONG)
    return samples, data.image_root(folder)


def answered(world, work, vlm, samples=None):
    place = Placement("cpu", 4, 4, False, partial(progress, "off"), work)
    generation = HfGeneration(max_new_tokens=8)
    return answer_all(world, work, lambda: vlm, View(CLEAN, None, 0), generation, place, samples)


def test_a_sample_is_counted_and_named_and_makes_no_pair(world, vlm, tmp_path):
    samples, _ = world
    answers, summary = answered(world, tmp_path / "all", vlm)
    assert (summary["answers"], summary[TOO_LONG], summary["empty"]) == (6, 1, 0)
    assert summary["left_out"] == [f"{samples[3].id}: too_long (no room in the model's context)"]
    others, plain = answered(world, tmp_path / "others", vlm, [*samples[:3], *samples[4:]])
    assert [a for a in answers if a.stop != TOO_LONG] == others
    assert TOO_LONG not in plain and "left_out" not in plain

    tally, wrong = Tally(["x"]), [replace(a, text=f"not {a.text}") for a in answers]
    made = list(make_pairs(lambda: grouped(samples, answers, {"x": wrong}), [], 0))
    for one in made:
        tally.add(one)
    assert tally.summary()["dropped"] == {TOO_LONG: 1}
    assert tally.summary()["kept"] == 5
    assert (made[3].result.sample_id, made[3].result.detail) == (
        samples[3].id,
        "chosen and rejected",
    )


# --- evaluation


class Asked(Benchmark):
    """Questions on one picture each; the answer's length is its score."""

    kind: str = "asked"
    prompts: tuple[str, ...] = ()

    @property
    def plain_protocol(self):
        return "asked"

    def questions(self, root=None):
        for number, prompt in enumerate(self.prompts):
            load = SINGLE[number % 12].load
            yield Question(f"q{number}", f"p{number}", "all", prompt, "red", 4, load)

    def predict(self, question, text):
        right = float(bool(text))
        counts = {"asked": 1.0, "correct": right}
        row = (question.id, question.group, question.type, question.prompt, text, text, "red")
        return Prediction(*row, right, counts)

    def metrics(self, types=()):
        return [Metric("all", "accuracy", accuracy, (tuple(types),))]


def measured(benchmark, vlm, work):
    place = Placement("cpu", 4, 4, False, partial(progress, "off"), work)
    work.mkdir(exist_ok=True)
    asked = ask(benchmark, lambda: Engine(vlm, 4), place, "evaluate.base.asked")
    return asked, *conclude(benchmark, work, model="base", name="asked")


def test_an_evaluation_tells_how_many_did_not_fit_and_counts_them_as_unanswered(vlm, tmp_path):
    prompts = tuple("What is it?" for _ in range(19))
    _, summary, [plain] = measured(Asked(prompts=prompts), vlm, tmp_path / "plain")
    assert (plain.value, plain.n) == (100.0, 19)
    assert (summary["empty"], TOO_LONG in summary) == (0, False)
    _, summary, [score] = measured(Asked(prompts=(*prompts, LONG)), vlm, tmp_path / "long")
    assert (score.value, score.n) == (95.0, 20)
    assert (summary["questions"], summary[TOO_LONG], summary["empty"]) == (20, 1, 0)
    assert summary["left_out"] == ["q19: too_long (counted as unanswered)"]
    rows = (tmp_path / "long" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(row)["stop"] for row in rows].count(TOO_LONG) == 1


@pytest.mark.parametrize("first", [True, False])
def test_with_more_than_a_share_it_is_refused_as_soon_as_that_is_seen(vlm, tmp_path, first):
    prompts = ["What is it?"] * 38
    prompts = tuple([LONG] * 3 + prompts if first else prompts + [LONG] * 3)
    assert 2 <= MOST_TOO_LONG * len(prompts) < 3
    with pytest.raises(
        StageError, match=r"evaluate\.base\.asked: at least 3 of 41 questions do not"
    ):
        measured(Asked(prompts=prompts), vlm, tmp_path)
    with pytest.raises(StageError, match="longer context"):  # the same command again
        measured(Asked(prompts=prompts), vlm, tmp_path)
    journals = [line for file in tmp_path.glob("parts/*") for line in file.open()]
    rows = sum(len(json.loads(line)) for line in journals)
    assert rows < 12 if first else rows > 30, "refused before the others are asked, where it can be"
