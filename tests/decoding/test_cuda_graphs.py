"""Decode steps that are recorded and played again; for each family in test_engine_families.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from seva_exp import Machine
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import CLEAN
from seva_exp.decoding import HfGeneration, engine
from seva_exp.decoding.cuda_graphs import OFTEN, RecordedSteps
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.engines import engine_of
from seva_exp.decoding.kv_attention import Layout, Shape
from seva_exp.decoding.kv_cache import Extent, KVCache
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.stages import StageContext

from .alone import by_id
from .recording import Frozen, recorded_with
from .scenes import SHARED, SINGLE, request

UNREACHABLE = 10**6
"""An end of sequence that never comes."""


def asked(engine, requests):
    return {id: reply.tokens for id, reply in by_id(engine.run(requests)).items()}


def test_played_steps_give_the_same_answers(vlm, expected):
    record, said = Frozen(), []
    engine = recorded_with(vlm, record, rows=12, said=said)
    assert asked(engine, SHARED) == expected[1]
    assert not said
    assert record.played > record.recorded > 0


def test_most_steps_of_long_answers_are_plays(vlm, monkeypatch):
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", UNREACHABLE)
    requests = [request(number, tokens=80 + number) for number in range(4)]
    record = Frozen()
    plain = asked(Engine(vlm, 8)._asks, requests)
    assert asked(recorded_with(vlm, record), requests) == plain
    assert record.recorded < 15
    assert record.played > 60


def test_a_recording_that_gives_other_numbers_is_not_used(vlm, expected):
    def wrong(work):
        work()
        return lambda: work() + 1.0

    said = []
    assert asked(recorded_with(vlm, wrong, said=said), SINGLE) == expected[0]
    assert said == [
        "decode steps are not recorded as CUDA graphs (a recorded step gave other numbers than the "
        "step itself); it goes on without"
    ]


def test_a_recording_that_froze_its_tokens_is_found_out(vlm, expected):
    """Though it would give the right numbers on what it was made with."""

    def frozen(work):
        out = work()
        return lambda: out

    said = []
    assert asked(recorded_with(vlm, frozen, said=said), SINGLE) == expected[0]
    assert len(said) == 1


def test_a_step_that_cannot_be_recorded_is_told_once(vlm, expected):
    tried = []

    def refused(work):
        tried.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")

    said = []
    engine = recorded_with(vlm, refused, said=said)
    assert asked(engine, SINGLE) == expected[0]
    assert asked(engine, SHARED) == expected[1]
    assert tried == [1]
    assert said == [
        "decode steps are not recorded as CUDA graphs (RuntimeError: operation not permitted when "
        "stream is capturing); it goes on without"
    ]


def test_memory_that_runs_out_in_recording_is_survived(vlm, expected):
    real, failed = Frozen(), []

    def record(work):
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(work)

    said = []
    assert asked(recorded_with(vlm, record, said=said), SINGLE) == expected[0]
    assert failed and not said and real.played


def test_a_play_works_on_the_buffers_that_were_recorded(vlm, monkeypatch):
    """Buffers grow as answers do; a recording of old ones is never played."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", UNREACHABLE)
    loops, grown = [], []

    def record(work):
        loop = work.func.__self__
        there = [buffer.data_ptr() for buffer in loop._cache.own.values()]
        loops.append(there)

        def play():
            grown.append([buffer.data_ptr() for buffer in loop._cache.own.values()] == there)
            return work()

        return play

    asked(recorded_with(vlm, record), [request(number, tokens=120) for number in range(4)])
    assert len({tuple(there) for there in loops}) > 1
    assert grown and all(grown)


def test_buffers_made_anew_in_an_old_size_are_other_buffers():
    """Where memory is short, new rows may take them to another size and their leaving back."""
    slots, shape, like = KVCache(), Shape(2, 2, 1, 16, 8, True), torch.zeros(1, 1, 3, 4)
    small, large = Extent(2, 16, 2, 8), Extent(3, 16, 3, 7)

    def record(work):
        own = slots.own[0]
        return lambda: own + work.args[0]

    recorded = RecordedSteps(record, pytest.fail)
    for value in range(2):
        for extent in (large, small):  # new rows; then steps
            slots.fit(extent, extent.tokens, 8)
            slots.layer(0, like)[1].fill_(value)
            assert slots.extent == extent
        for _ in range(OFTEN + 2):
            found = recorded(slots, shape, (torch.ones(1),), lambda one: slots.own[0] + one)
            assert found.unique() == value + 1


def test_memory_is_not_held_when_a_run_is_over(vlm):
    engine = recorded_with(vlm, Frozen())
    asked(engine, SINGLE[:2])
    assert engine._recorded._on is None and not engine._recorded._known


def test_shapes_are_few_and_within_what_is_there():
    extent = Extent(prefixes=5, prefix_length=608, rows=6, row_length=96)
    layout = Layout([0, 1, 2], 3, torch.device("cpu"))
    assert layout.shape(600, 7).rounded(extent) == Shape(4, 4, 1, 608, 32, True)
    assert layout.shape(600, 70).rounded(extent) == Shape(4, 4, 1, 608, 96, True)
    layout = Layout([0, 0, 0, 1, 1], 2, torch.device("cpu"))
    shape = layout.shape(600, 33).rounded(extent)
    assert shape == Shape(6, 2, 4, 608, 64, False)
    assert layout.members(shape).tolist() == [[0, 1, 2, 0], [3, 4, 0, 0]]
    layout = Layout([0, 1, 2, 3, 4], 5, torch.device("cpu"))
    assert not layout.shape(600, 33).rounded(extent).plain, "5 prefixes for 6 rows"


@pytest.mark.parametrize("wanted", [False, True])
def test_graphs_are_recorded_on_a_gpu_where_they_are_wanted(vlm, tmp_path, monkeypatch, wanted):
    monkeypatch.setattr(engine, "cuda_graphs", lambda device: Frozen())
    machine = Machine(device="cpu", cuda_graphs="auto" if wanted else "off")
    context = StageContext(machine, FileDigests(tmp_path), lambda *_: None, lambda *_: None)
    on_gpu = SimpleNamespace(model=vlm.model, device=torch.device("cuda"))
    view, place = View(CLEAN, None, 0), context.placement(tmp_path)
    made = engine_of(HfGeneration(), TinyModel(), lambda: on_gpu, place, view)
    assert (made._asks._recorded is not None) == wanted
