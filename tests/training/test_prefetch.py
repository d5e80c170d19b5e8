"""Micro-batches made ready ahead: the same ones, in the same order, with the same errors."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
import torch
from torch import Tensor

from seva_exp.training import prefetch
from seva_exp.training.dpo import DpoArguments, trainer_for
from seva_exp.training.prefetch import Prefetcher, on_device
from seva_exp.training.spec import DpoTraining

from .tools import job, placement, preferences, tiny, trained


def counted(until: int, made: list[int]):
    for number in range(until):
        made.append(number)
        yield number


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "nothing was made ahead"
        time.sleep(0.01)


def collating() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("collation")]


@pytest.mark.parametrize("depth", [0, 1, 3, 20])
def test_all_values_in_order(depth):
    assert list(Prefetcher(counted(10, []), depth)) == list(range(10))
    assert list(Prefetcher(counted(0, []), depth)) == []


def test_as_many_are_made_ahead_as_asked_and_none_before():
    made: list[int] = []
    ahead = Prefetcher(counted(10, made), 3)
    time.sleep(0.05)
    assert made == []  # the row order is told which epoch it is before the first is asked for
    assert next(ahead) == 0
    wait_for(lambda: len(made) == 4)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    ahead.close()


def test_an_error_comes_where_its_value_would():
    def broken():
        yield 1
        raise OSError("no such picture")

    ahead = Prefetcher(broken(), 4)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="no such picture"):
        next(ahead)


def test_closing_ends_the_thread():
    before = {*collating()}
    ahead = Prefetcher(counted(100, []), 2)
    next(ahead)
    (own,) = {*collating()} - before
    ahead.close()
    assert not own.is_alive()
    assert list(ahead) == []
    ahead.close()


def test_training_is_the_same_with_micro_batches_made_ahead(tmp_path, monkeypatch):
    """Two epochs, so that a step's neighbours are of another order; a GPU has a depth of its own
    (here: two micro-batches a step)."""
    spec = DpoTraining(batch_size=4, epochs=2, learning_rate=1e-3, lora_rank=4, lora_alpha=8)
    _, plain = trained(tmp_path / "plain", spec, n=7, train_batch_size=2)
    depths: list[int] = []

    def ahead(source, depth):
        depths.append(depth)
        return Prefetcher(source, 2)

    monkeypatch.setattr(prefetch, "Prefetcher", ahead)
    _, rows = trained(tmp_path / "ahead", spec, n=7, train_batch_size=2)
    assert rows == plain and len(rows) == 4
    assert depths == [0, 0]  # on a CPU, once an epoch
    assert not collating()


def test_what_can_move_is_moved_and_the_rest_stays():
    class Moving:
        def to(self, device, non_blocking=False):
            return device.type, non_blocking

    batch = {"ids": torch.ones(2), "row": Moving(), "names": ["a", 1], "more": (torch.ones(1),)}
    moved = on_device(batch, torch.device("meta"))
    assert moved["ids"].device.type == moved["more"][0].device.type == "meta"
    assert moved["row"] == ("meta", True) and moved["names"] == ["a", 1]
    assert isinstance(batch["ids"], Tensor) and batch["ids"].device.type == "cpu"


@pytest.mark.parametrize(("kind", "ahead"), [("cuda", 2), ("cpu", 0)])
def test_with_a_gpu_a_step_s_micro_batches_are_made_ahead(tmp_path, monkeypatch, kind, ahead):
    """Of a trainer that is on the CPU; what is asked is where its arguments say it is."""
    vlm = tiny()
    spec = DpoTraining(batch_size=4, lora_rank=4, lora_alpha=8)
    where = placement(tmp_path, train_batch_size=2)
    trainer = trainer_for(job(vlm, spec, where), preferences(vlm, 8))
    depths: list[int] = []

    def made(source, depth):
        depths.append(depth)
        return Prefetcher(source, depth)

    monkeypatch.setattr(prefetch, "Prefetcher", made)
    monkeypatch.setattr(DpoArguments, "device", property(lambda _: torch.device(kind)))
    with closing(trainer), closing(trainer.forward):
        trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 2, "cpu")
    assert depths == [ahead]
