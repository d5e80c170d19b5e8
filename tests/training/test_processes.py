"""Two processes are one with twice the accumulation; one that dies ends the stage, and the same
command goes on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from seva_exp import InputError, Machine, StageError
from seva_exp.digests import FileDigests
from seva_exp.progress import progress
from seva_exp.stages import Workshop
from seva_exp.stages.processes import Job, device_of_ranks, launch
from seva_exp.training import DpoTraining
from seva_exp.training.arguments import shared_arguments
from seva_exp.training.batches import SeededOrder, StepBatches

from .ranks import ROWS, TwoTrainings
from .refusing import Refusing
from .tools import picture, placement

ROOT = Path(__file__).parents[2]


def workshop(folder: Path, log=lambda *_: None, **machine) -> Workshop:
    values = {"device": "cpu", "train_batch_size": 1, "checkpoint_minutes": 0.0} | machine
    return Workshop(Machine(**values), FileDigests(folder), partial(progress, "off"), log)


def job(stage, work: Path) -> Job:
    return Job(stage.run, stage.label, work, [])


def same(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert set(a) == set(b)
        for name in set(a) - {"epoch"}:  # the Trainer's counts micro-batches, fillers too
            value = a[name]
            assert b[name] == pytest.approx(value, rel=1e-5, abs=1e-5), (name, a["step"])


def test_two_processes_are_one_with_twice_the_accumulation(tmp_path, monkeypatch):
    """After rank 1 was killed in the second epoch, and the same command was given again."""
    monkeypatch.chdir(ROOT)  # the processes import this package
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for i in range(ROWS):
        picture(i).save(tmp_path / f"{i}.png")
    (one := tmp_path / "one").mkdir()
    whole = TwoTrainings(tmp_path).run(one, [], workshop(tmp_path))
    assert len(whole["dpo"]) == 6
    (two := tmp_path / "two").mkdir()
    told: list[int] = []
    shop = workshop(tmp_path, lambda label, step, row: told.append(step), processes=2)
    with pytest.raises(StageError, match=r"align: process 1 died \(SIGKILL\).*the same command"):
        launch(job(TwoTrainings(tmp_path, dies_at=5), two), shop)
    left = [path.name for path in (two / "trainer").glob("checkpoint-*")]
    assert left == ["checkpoint-4"]
    told.clear()
    parts, _ = launch(job(TwoTrainings(tmp_path), two), shop)
    same(whole["dpo"], parts["dpo"])
    same(whole["sft"], parts["sft"])
    assert told == [1, 2, 3, 4, 5, 6]
    assert {path.name for path in two.iterdir()} - {"none", "parts"} == {
        "adapter",
        "metrics.jsonl",
        "throughput.jsonl",
    }


def test_the_error_of_a_rank_is_the_stage_s(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"^dpo\.batch_size=5: not this one\.$"):
        launch(job(Refusing(), tmp_path), workshop(tmp_path, processes=2))


@pytest.mark.parametrize(("size", "accumulation", "ranks"), [(1, 2, 2), (2, 1, 3), (3, 1, 1)])
def test_every_row_is_dealt_once_and_every_rank_has_equally_many(size, accumulation, ranks):
    step = size * accumulation * ranks
    for rows in range(1, 20):
        order = SeededOrder([f"s{i}" for i in range(rows)], 0)
        dealt = [[*StepBatches(order, size, accumulation, r, ranks)] for r in range(ranks)]
        assert {len(batches) for batches in dealt} == {
            len(StepBatches(order, size, accumulation, 0, ranks))
        }
        in_turn = [batch for together in zip(*dealt, strict=True) for batch in together]
        assert [i for batch in in_turn for i in batch if i >= 0] == list(order)
        fillers = [batch for batch in in_turn if batch[0] < 0]
        assert all(len(batch) == 1 and 0 <= ~batch[0] < rows for batch in fillers)
        assert len(fillers) < ranks
        per_step = [i for batch in in_turn[: accumulation * ranks] for i in batch if i >= 0]
        assert per_step == list(order)[:step]


def test_a_step_s_rows_are_dealt_to_the_ranks_and_accumulated(tmp_path):
    spec = DpoTraining(batch_size=12)
    place = placement(tmp_path, processes=2, train_batch_size=4)
    found = shared_arguments(spec, place, 0)
    sizes = found["per_device_train_batch_size"], found["gradient_accumulation_steps"]
    assert sizes == (3, 2)
    assert found["ddp_find_unused_parameters"] is False
    with pytest.raises(InputError, match=r"machine.processes=5: the batch_size=12 rows"):
        shared_arguments(spec, placement(tmp_path, processes=5), 0)


def test_processes_that_cannot_be_had_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of_ranks(Machine(processes=2)) == "cuda"
    with pytest.raises(InputError, match=r"machine.processes=3: this machine has 2 GPUs"):
        device_of_ranks(Machine(processes=3))
    with pytest.raises(InputError, match=r"machine.device=cuda:1 is one"):
        device_of_ranks(Machine(processes=2, device="cuda:1"))
