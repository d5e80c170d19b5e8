"""Two processes are one with twice the accumulation; one that dies ends the stage, and the same
command goes on."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import pytest
import torch

from seva_exp import InputError, Machine, StageError
from seva_exp.core.digests import FileDigests
from seva_exp.core.progress import progress
from seva_exp.stages import StageContext
from seva_exp.stages.processes import ProcessTask, device_of_ranks, launch
from seva_exp.stages.worker import portable
from seva_exp.training import DpoTraining
from seva_exp.training.arguments import shared_arguments
from seva_exp.training.batches import SeededOrder, StepBatches
from seva_exp.training.spec import cut

from .ranks import ROWS, TwoTrainings
from .refusing import Odd, OutOfMemory, Refusing, Telling
from .tools import picture, placement

ROOT = Path(__file__).parents[2]


def stage_context(folder: Path, log=lambda *_: None, **machine) -> StageContext:
    values = {"device": "cpu", "train_batch_size": 1, "checkpoint_minutes": 0.0} | machine
    return StageContext(Machine(**values), FileDigests(folder), partial(progress, "off"), log)


def job(stage, work: Path) -> ProcessTask:
    return ProcessTask(stage.run, stage.label, work, {})


def same(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert set(a) == set(b)
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=1e-5, abs=1e-5), (name, a["step"])


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_accumulation(tmp_path, monkeypatch):
    """After rank 1 was killed in the second epoch, and the same command was given again."""
    monkeypatch.chdir(ROOT)  # the processes import this package
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for i in range(ROWS):
        picture(i).save(tmp_path / f"{i}.png")
    (one := tmp_path / "one").mkdir()
    whole = TwoTrainings(tmp_path).run(one, {}, stage_context(tmp_path))
    assert len(whole["dpo"]) == 6
    (two := tmp_path / "two").mkdir()
    told: list[int] = []
    context = stage_context(tmp_path, lambda label, step, row: told.append(step), processes=2)
    with pytest.raises(StageError, match=r"align: process 1 died \(SIGKILL\).*the same command"):
        launch(job(TwoTrainings(tmp_path, dies_at=5), two), context)
    left = {path.name for path in (two / "trainer").glob("checkpoint-*")}
    assert left == {"checkpoint-3", "checkpoint-4"}
    told.clear()
    parts, _ = launch(job(TwoTrainings(tmp_path), two), context)
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
    with pytest.raises(InputError) as caught:
        launch(job(Refusing(), tmp_path), stage_context(tmp_path, processes=2))
    assert str(caught.value) == "dpo.batch_size=5: not this one."
    assert any("refusing.py" in note for note in caught.value.__notes__)  # the rank's traceback


def test_the_first_error_is_raised_as_it_was(tmp_path, monkeypatch):
    """The one that a rank raises because it lost another comes later."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        launch(job(OutOfMemory(), tmp_path), stage_context(tmp_path, processes=2))
    assert "OutOfMemoryError" in (tmp_path / "parts/ranks/rank-1.log").read_text()


def test_an_error_that_no_pickle_holds_is_still_told():
    error = pickle.loads(portable(Odd(1, 2), 3))
    assert type(error) is RuntimeError
    assert str(error) == "Odd: 1 and 2"
    assert "In process 3" in error.__notes__[0]


def test_ranks_warn_once_share_the_vision_cache_and_leave_nothing_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "parts/ranks").mkdir(parents=True)
    (tmp_path / "parts/ranks/events.jsonl").write_text('["warn", "by one that was killed"]\n')
    warned: list[str] = []
    context = stage_context(tmp_path, processes=2, vision_cache=1.0)
    context.warn = warned.append
    context._features["a"] = object()
    assert launch(job(Telling(), tmp_path), context)[0] == {"vision_cache": 2**29}
    assert warned == ["said by 0"]
    assert not context._features  # nor the model: the ranks need the memory
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    ("step", "ranks", "most"),
    [(4, 2, 1), (6, 3, 2), (3, 1, 3), (7, 1, 4), (11, 2, 3), (4, 3, 8), (2, 3, 1), (13, 4, 2)],
)
def test_every_row_is_dealt_once_and_every_rank_has_equally_many(step, ranks, most):
    size, accumulation = cut(step, ranks, most)
    assert size <= most
    for rows in range(1, 20):
        order = SeededOrder([f"s{i}" for i in range(rows)], 0)
        dealt = [[*StepBatches(order, size, step, r, ranks)] for r in range(ranks)]
        assert {len(batches) for batches in dealt} == {
            len(StepBatches(order, size, step, 0, ranks))
        }
        in_turn = [batch for together in zip(*dealt, strict=True) for batch in together]
        assert [i for batch in in_turn for i in batch if i >= 0] == list(order)
        fillers = [batch for batch in in_turn if batch[0] < 0]
        assert all(len(batch) == 1 and 0 <= ~batch[0] < rows for batch in fillers)
        steps = [*range(0, rows, step)]
        assert len(fillers) < ranks * len(steps)
        # The Trainer takes so many micro-batches for a step, and the rest for the last one.
        assert -(-len(dealt[0]) // accumulation) == len(steps)
        per_step = [i for batch in in_turn[: accumulation * ranks] for i in batch if i >= 0]
        assert per_step == list(order)[:step]


def test_a_step_s_rows_are_dealt_to_the_ranks_and_accumulated(tmp_path):
    spec = DpoTraining(batch_size=12)
    place = placement(tmp_path, processes=2, train_batch_size=4)
    found = shared_arguments(spec, place, 0)
    sizes = found["per_device_train_batch_size"], found["gradient_accumulation_steps"]
    assert sizes == (3, 2)
    assert found["ddp_find_unused_parameters"] is False


@pytest.mark.parametrize(
    ("step", "ranks", "most", "size", "count"),
    [(16, 1, 16, 16, 1), (7, 1, 4, 4, 2), (17, 1, 16, 9, 2), (12, 5, 4, 3, 1), (2, 4, 8, 1, 1)],
)
def test_micro_batches_are_as_large_as_they_may_be(step, ranks, most, size, count):
    """Also where the rows of a step are a prime number, or fewer than processes."""
    assert cut(step, ranks, most) == (size, count)


def test_processes_that_cannot_be_had_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of_ranks(Machine(processes=2)) == "cuda"
    with pytest.raises(InputError, match=r"machine.processes=3: this machine has 2 GPUs"):
        device_of_ranks(Machine(processes=3))
    for device in ("cuda:1", "mps"):
        with pytest.raises(ValueError, match=f"processes=2: each .*, and device={device} is one"):
            Machine(processes=2, device=device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match=r"machine.processes=2: .* this machine has one"):
        device_of_ranks(Machine(processes=2))
