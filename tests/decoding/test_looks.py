"""Several decode steps between two looks of the host: what is given is what single steps give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seva_exp.decoding import scheduler as loop
from seva_exp.decoding.choosing import Chooser
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.sampling import Sampling

from .alone import by_id
from .recording import Frozen, recorded_with
from .scenes import SHARED, SINGLE, asked, request

HOW = Sampling(0.9, 0.95, 3, "sampling/clean")
UNREACHABLE = 10**6


@pytest.fixture
def looks(monkeypatch):
    """How many steps the host looked at at once, each time; as on a GPU."""
    seen, real = [], Chooser.write

    def write(chooser, rows, found):
        seen.append(len(found))
        real(chooser, rows, found)

    monkeypatch.setattr(Chooser, "write", write)
    monkeypatch.setitem(loop.STEPS, "cpu", loop.STEPS["cuda"])
    return seen


@pytest.fixture
def single(monkeypatch):
    """Replies with a look after each step."""

    def of(vlm, requests, **options):
        with monkeypatch.context() as patch:
            patch.setitem(loop.STEPS, "cpu", 1)
            return by_id(Engine(vlm, 8, **options).run(requests))

    return of


@pytest.mark.parametrize("sampling", [None, HOW], ids=["greedy", "sampled"])
@pytest.mark.parametrize("tokens", [None, 150], ids=["room", "pressure"])
@pytest.mark.parametrize("requests", [SINGLE, SHARED], ids=["single", "shared"])
def test_replies_are_those_of_single_steps(
    vlm, looks, single, monkeypatch, requests, tokens, sampling
):
    """Log-probabilities to rounding, since other rows run beside one another."""
    monkeypatch.setattr(loop, "SURPLUS", 1)
    options = {"sampling": sampling, "logprobs": True}
    expected = single(vlm, requests, **options)
    looks.clear()
    found = by_id(Engine(vlm, 5, tokens=tokens, **options).run(requests))
    assert max(looks) > 4
    for id, reply in found.items():
        wanted = expected[id]
        assert replace(reply, logprobs=()) == replace(wanted, logprobs=())
        assert reply.logprobs == pytest.approx(wanted.logprobs, abs=1e-5)


def test_long_answers_are_looked_at_every_eighth_step(vlm, looks, monkeypatch):
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", UNREACHABLE)
    bounds = [80 + number for number in range(6)]
    found = asked(vlm, [request(i, tokens=bound) for i, bound in enumerate(bounds)])
    assert [len(found[f"id{i}"]) for i in range(6)] == bounds
    assert max(looks) == 8
    assert len(looks) < sum(looks) / 4


def test_short_answers_are_looked_at_after_each_step(vlm, looks):
    """A row that has ended would run on in vain for longer than it ran."""
    short = [request(number, picture=number // 6, tokens=3) for number in range(24)]
    asked(vlm, short)
    assert set(looks) == {1}


def test_no_row_takes_more_room_than_its_longest_answer(vlm, looks, extents, monkeypatch):
    """A row of few tokens beside a long one stays where it ended."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", UNREACHABLE)
    monkeypatch.setattr(loop, "SURPLUS", 1)
    asked_for = [request(0, tokens=30), request(1, tokens=37)]
    alone = asked(vlm, asked_for[1:])
    looks.clear()
    longest = max(len(asked(vlm, asked_for)[one.id]) for one in asked_for)
    assert longest == 37 and max(looks) == 8
    assert asked(vlm, asked_for)["id1"] == alone["id1"]


def test_a_step_reads_the_places_that_it_needs(vlm, looks, monkeypatch):
    """And no more, within the steps of one look."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", UNREACHABLE)
    monkeypatch.setattr(loop, "SURPLUS", 1)
    owns, real = [], loop.Scheduler._step

    def step(self, shape, axes, table, members):
        owns.append((shape.own, int(table[2].max()) + 1))
        return real(self, shape, axes, table, members)

    monkeypatch.setattr(loop.Scheduler, "_step", step)
    asked(vlm, [request(number, tokens=40) for number in range(3)])
    assert all(own == last for own, last in owns)


@pytest.mark.parametrize("sampling", [None, HOW], ids=["greedy", "sampled"])
def test_recorded_steps_are_played_without_a_look(vlm, looks, single, monkeypatch, sampling):
    monkeypatch.setattr(loop, "SURPLUS", 1)
    expected = single(vlm, SHARED, sampling=sampling)
    record, said = Frozen(), []
    engine = recorded_with(vlm, record, rows=12, said=said, sampling=sampling)
    looks.clear()
    found = by_id(engine.run(SHARED))
    assert {id: r.tokens for id, r in found.items()} == {id: r.tokens for id, r in expected.items()}
    assert record.played > record.recorded > 0 and not said and max(looks) > 2


def test_memory_that_runs_out_between_looks_loses_nothing(vlm, looks, expected, monkeypatch):
    monkeypatch.setattr(loop, "SURPLUS", 1)
    real, calls = vlm.model.forward, []

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) in (9, 31):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*args, **kwargs)

    monkeypatch.setattr(vlm.model, "forward", forward)
    assert asked(vlm, SHARED, 8) == expected[1]
    assert len(calls) > 31 and max(looks) > 2
