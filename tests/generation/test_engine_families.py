"""Every family's answers are those of ``model.generate`` one by one, token for token in float32."""

from __future__ import annotations

from functools import cache, partial

import pytest

from seva_exp import Machine
from seva_exp.generation import recorded
from seva_exp.generation.engine import Continuous, Engine
from seva_exp.interfaces import Request
from seva_exp.models.vlm import load

from ..models import families
from .alone import alone, by_id
from .recording import Frozen, recorded_with

pytestmark = pytest.mark.usefixtures("numbers_in_words")
MACHINE = Machine(device="cpu", dtype="float32")
SIZES = [(60, 30), (32, 32), (27, 75), (150, 90)]
PROMPTS = ["Describe the image.", "What is in it?", "How many things are in it, and which?", "Why?"]


@pytest.fixture(scope="module")
def vlm_of(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("checkpoints")
    spec_of = cache(lambda name: families.build(name, root / name))
    return lambda name: load(spec_of(name), MACHINE)


def request(picture: int, question: int) -> Request:
    """Answers of 3 to 11 tokens."""
    bound = 3 + (5 * picture + 3 * question) % 9
    load = partial(families.draw, *SIZES[picture], picture)
    return Request(f"{picture}/{question}", f"p{picture}", load, PROMPTS[question], bound)


@pytest.mark.parametrize("name", [*families.FAMILIES, *families.VARIANTS])
def test_answers_are_those_of_generate_one_by_one(name, vlm_of, monkeypatch):
    """Pictures with one to four questions of several lengths, in fewer rows than questions and in
    more; then with recorded steps. The window of the sliding families is shorter than a prompt."""
    vlm = vlm_of(name)
    requests = [request(p, q) for p in range(4) for q in range(1 + p)]
    expected = {request.id: alone(vlm, request) for request in requests}
    assert len(set(expected.values())) > 7
    for rows in (3, 16):
        engine = Engine(vlm, rows)
        assert isinstance(engine._asks, Continuous)
        found = by_id(engine.run(requests))
        assert {id: reply.tokens for id, reply in found.items()} == expected
    monkeypatch.setattr(recorded, "OFTEN", 1)
    record, said = Frozen(), []
    found = by_id(recorded_with(vlm, record, rows=16, said=said).run(requests))
    assert {id: reply.tokens for id, reply in found.items()} == expected
    assert record.played > 0 and not said
