"""A model that is trained is gone before the next one is loaded."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

import seva_exp
from seva_exp import Machine
from seva_exp.methods import SticMethod
from seva_exp.stages import loaded as loading
from seva_exp.stages import processes
from seva_exp.training import SftTraining

from ..slow import slow_but
from .test_reference import experiment


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Python's own would come at some time or other, and hide what is kept."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("ranks", slow_but([1], of=[1, 2]))
def test_one_model_at_a_time(tmp_path, monkeypatch, no_collection, ranks):
    """Alignment, stage 2, and what follows: each finds the memory free; with several processes it
    is free when they are started, and after the run."""
    alive: list[weakref.ref] = []
    load, start = loading.load_model, processes.own_environments

    def none_left() -> None:
        assert not [ref for ref in alive if ref() is not None]

    def loaded(*arguments):
        none_left()
        vlm = load(*arguments)
        alive.append(weakref.ref(vlm.model))
        return vlm

    def started(*arguments):
        none_left()
        return start(*arguments)

    monkeypatch.setattr(loading, "load_model", loaded)
    monkeypatch.setattr(processes, "own_environments", started)
    machine = Machine(device="cpu", runs=str(tmp_path), progress="off", processes=ranks)
    one = experiment().model_copy(update={"method": SticMethod(), "sft": SftTraining(batch_size=8)})
    seva_exp.run(one if ranks == 1 else experiment(), machine)
    none_left()
    assert len(alive) >= 4 if ranks == 1 else alive == []
