"""Every family's answers are those of ``model.generate`` one by one, token for token in float32."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import pytest

from seva_exp import Machine
from seva_exp.core.interfaces import Request
from seva_exp.decoding import cuda_graphs as recorded
from seva_exp.decoding import scheduler
from seva_exp.decoding.engine import Continuous, Engine
from seva_exp.decoding.hf_generate import Batches
from seva_exp.models.vlm import load

from ..models import families
from .alone import alone, by_id
from .recording import Frozen, recorded_with

pytestmark = pytest.mark.usefixtures("numbers_in_words")
MACHINE = Machine(device="cpu", dtype="float32")
SIZES = [(60, 30), (32, 32), (27, 75), (150, 90)]
PROMPTS = ["Describe the image.", "What is in it?", "How many things are in it, and which?", "Why?"]


ALL = [*families.FAMILIES, *families.VARIANTS]


def request(picture: int, question: int) -> Request:
    """Answers of 3 to 11 tokens."""
    bound = 3 + (5 * picture + 3 * question) % 9
    load = partial(families.draw, *SIZES[picture], picture)
    return Request(f"{picture}/{question}", f"p{picture}", load, PROMPTS[question], bound)


REQUESTS = [request(p, q) for p in range(4) for q in range(1 + p)]
"""Pictures with one to four questions of several lengths."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory):
    """A family's model and its answers one by one, by its name."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def of(name: str):
        vlm = load(families.build(name, root / name), MACHINE)
        return vlm, {request.id: alone(vlm, request) for request in REQUESTS}

    return of


def answers(engine):
    return {id: reply.tokens for id, reply in by_id(engine.run(REQUESTS)).items()}


@pytest.mark.parametrize("name", ALL)
def test_answers_are_those_of_generate_one_by_one(name, family):
    """In fewer rows than questions and in more. The window of the sliding families is shorter than
    a prompt."""
    vlm, expected = family(name)
    assert len(set(expected.values())) > 7
    for rows in (3, 16):
        engine = Engine(vlm, rows)
        assert isinstance(engine._asks, Continuous)
        assert answers(engine) == expected


@families.slow_but("llava15", "gemma3", "paligemma2", "qwen3_vl", of=ALL)
def test_an_answer_goes_on_behind_its_beginning(name, family):
    """In the engine and in transformers' own loop: what is left of the answer."""
    vlm, expected = family(name)
    begun = [
        replace(one, context=expected[one.id][:k], max_new_tokens=one.max_new_tokens - k)
        for one in REQUESTS
        for k in (1 + len(one.id + one.prompt) % 2,)
    ]
    left = {one.id: expected[one.id][len(one.context) :] for one in begun}
    assert all(one.max_new_tokens > 0 and left[one.id] for one in begun)
    for engine in (Engine(vlm, 16), Batches(vlm, 5, None, None, False)):
        said = by_id(engine.run(begun))
        assert {id: reply.tokens for id, reply in said.items()} == left


@families.slow_but("llava15", "gemma3", "qwen3_vl", of=ALL)
def test_so_are_those_of_recorded_steps(name, family, monkeypatch):
    """Quick: a plain family, one with windows and pictures seen both ways, one with three axes."""
    vlm, expected = family(name)
    monkeypatch.setattr(recorded, "OFTEN", 1)
    record, said = Frozen(), []
    assert answers(recorded_with(vlm, record, rows=16, said=said)) == expected
    assert record.played > 0 and not said


@pytest.mark.parametrize("name", ALL)
def test_so_are_those_of_steps_without_a_look(name, family, monkeypatch):
    """As on a GPU, where rows run on after their end until the host looks."""
    vlm, expected = family(name)
    monkeypatch.setitem(scheduler.STEPS, "cpu", 4)
    monkeypatch.setattr(scheduler, "SURPLUS", 1)
    assert answers(Engine(vlm, 6)) == expected
