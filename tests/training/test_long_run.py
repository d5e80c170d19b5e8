"""A training that is killed goes on from its checkpoint and ends as an undisturbed one; one that
diverges says with which samples."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from seva_exp import StageError
from seva_exp.training import DpoTraining, SftTraining, checkpoints
from seva_exp.training.batches import SeededOrder
from seva_exp.training.checkpoints import COMPLETE, CheckpointClock, finish, newest, undamaged
from seva_exp.training.driver import left_behind
from seva_exp.training.finetune import fine_tune
from seva_exp.training.steps import StepTrainer

from .test_finetune import samples
from .tools import job, picture, placement, preferences, quiet, tiny, train

ROOT = Path(__file__).parents[2]
SPEC = DpoTraining(
    loss={"sigmoid": 1.0, "anchor": 0.5},
    batch_size=4,
    epochs=2,
    learning_rate=1e-3,
    train_projector=True,
    projector_learning_rate=1e-4,
    lora_rank=4,
)
ROWS = 10
"""Three steps an epoch; the third has two rows."""


def align(work: Path, on_step=quiet, spec: DpoTraining = SPEC, **changes) -> list[dict]:
    """Train with a checkpoint after each step, in micro-batches of two."""
    vlm = tiny()
    rows = preferences(vlm, ROWS, rejected=(1, 2))
    changes = {"train_batch_size": 2, "checkpoint_minutes": 0.0} | changes
    place = placement(work, **changes)
    return train(job(vlm, spec, place, on_step=on_step), rows)[1]


def adapter(work: Path) -> bytes:
    return (work / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    work = tmp_path_factory.mktemp("whole") / "work"
    return align(work, checkpoint_minutes=None), adapter(work)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.test_long_run import align

def on_step(step, row):
    if step == 6:  # five checkpoints were written; the last lies in the middle of epoch 2
        os.kill(os.getpid(), signal.SIGKILL)

align(Path(sys.argv[1]), on_step)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What a training leaves that was killed in step 6, its fifth checkpoint being whole."""
    work = tmp_path_factory.mktemp("killed") / "work"
    command = [sys.executable, "-c", KILLED, str(work)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return work


def left_in(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "trainer").glob("checkpoint-*"))


def copied(work: Path, to: Path) -> Path:
    return Path(shutil.copytree(work, to / "work"))


def test_kill_9_in_the_middle_then_the_same_adapter_and_metrics(killed, undisturbed, tmp_path):
    work = copied(killed, tmp_path)
    assert left_in(work) == ["checkpoint-4", "checkpoint-5"]
    told: list[int] = []
    rows = align(work, lambda step, row: told.append(step))
    assert rows == undisturbed[0]
    assert told == [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert adapter(work) == undisturbed[1]
    # The steps before the kill were not computed again.
    steps = [json.loads(line)["step"] for line in (work / "throughput.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5, 6, 6]


def test_a_torn_checkpoint_is_not_used(killed, undisturbed, tmp_path):
    """Killed while checkpoint 6 was being written, and while the fifth was being taken away."""
    work = copied(killed, tmp_path)
    torn = work / "trainer" / "checkpoint-6"
    shutil.copytree(work / "trainer" / "checkpoint-5", torn)
    (torn / COMPLETE).unlink()
    (torn / "optimizer.pt").write_bytes(b"half")
    assert align(work) == undisturbed[0]
    assert adapter(work) == undisturbed[1]
    assert not torn.exists()


def test_where_no_checkpoint_is_whole_training_begins_anew(killed, undisturbed, tmp_path):
    work = copied(killed, tmp_path)
    for name in left_in(work):
        with (work / "trainer" / name / "optimizer.pt").open("r+b") as file:
            file.truncate(100)
    assert align(work) == undisturbed[0]
    assert adapter(work) == undisturbed[1]


def test_the_last_two_whole_checkpoints_are_kept(tmp_path):
    for number in (9, 10, 11):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "weights").write_bytes(b"x" * number)
    assert newest(tmp_path, torch.float32) is None
    for number in (10, 9, 8):
        (tmp_path / f"checkpoint-{number}").mkdir(exist_ok=True)
        (tmp_path / f"checkpoint-{number}" / "weights").write_bytes(b"x" * number)
        finish(tmp_path / f"checkpoint-{number}", torch.float32)
    assert newest(tmp_path, torch.float32) == tmp_path / "checkpoint-10"
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-9", "checkpoint-10"}


def test_a_checkpoint_of_another_number_format_is_not_gone_on_with(tmp_path):
    """The reference would stay the other format's, and no first step would show it."""
    (tmp_path / "checkpoint-3").mkdir()
    finish(tmp_path / "checkpoint-3", torch.bfloat16)
    assert newest(tmp_path, torch.bfloat16) == tmp_path / "checkpoint-3"
    assert newest(tmp_path, torch.float32) is None


def test_a_checkpoint_is_saved_when_it_is_time(monkeypatch, tmp_path):
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    args, state = SimpleNamespace(world_size=1), SimpleNamespace(global_step=1, max_steps=9)
    clock = CheckpointClock(10)
    now[0] = 100.0
    clock.on_train_begin(args, state, None)
    saved = []
    for now[0] in (150.0, 699.0, 700.0, 750.0, 1299.0, 1301.0):
        control = SimpleNamespace(should_save=False)
        clock.on_step_end(args, state, control)
        saved.append(control.should_save)
    assert saved == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("minutes", "saves"),
    [(10, [700.0, 2900.0]), (0, [100.0, 150.0, 700.0, 1500.0, 2850.0, 2900.0])],
)
def test_slow_checkpoints_are_saved_less_often(monkeypatch, tmp_path, minutes, saves):
    """One takes 110 s, as 29 GiB do on a slow disk: the next comes 2200 s after it began, so that
    a twentieth of the time goes to them. Each step means each step."""
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    args, state = SimpleNamespace(world_size=1), SimpleNamespace(global_step=1, max_steps=9)
    clock = CheckpointClock(minutes)
    clock.on_train_begin(args, state, None)
    saved = []
    for now[0] in (100.0, 150.0, 700.0, 1500.0, 2850.0, 2900.0):
        control = SimpleNamespace(should_save=False)
        clock.on_step_end(args, state, control)
        if control.should_save:
            saved.append(now[0])
            now[0] += 110.0
            clock.on_save(args, state, control)
    assert saved == saves


def test_checkpoints_are_gone_when_the_stage_is_done(killed, tmp_path):
    work = copied(killed, tmp_path)
    rows = align(work)
    left_behind(work, work / "adapter", "tiny", rows)
    names = {path.name for path in work.iterdir()}
    assert names == {"adapter", "metrics.jsonl", "throughput.jsonl"}
    assert [json.loads(line) for line in (work / "metrics.jsonl").open()] == rows


class Stop(Exception):
    """Stands for a kill: nothing of the trainer runs after it."""


def test_fine_tuning_goes_on_too(tmp_path):
    for i in range(ROWS):
        picture(i).save(tmp_path / f"{i}.png")
    made = samples(tmp_path, ROWS)
    spec = SftTraining(batch_size=4, learning_rate=1e-3, epochs=2)

    def tuned(work: Path, on_step=quiet) -> tuple[bytes, bytes]:
        place = placement(work, train_batch_size=2, checkpoint_minutes=0.0)
        fine_tune(job(tiny(), spec, place, on_step=on_step), made, tmp_path)
        return adapter(work), (work / "metrics.jsonl").read_bytes()

    def stop(step: int, row: dict) -> None:
        if step == 5:
            raise Stop

    whole = tuned(tmp_path / "whole")
    with pytest.raises(Stop):
        tuned(tmp_path / "cut", stop)
    assert left_in(tmp_path / "cut") == ["checkpoint-3", "checkpoint-4"]
    assert tuned(tmp_path / "cut") == whole


def test_divergence_names_the_steps_samples_and_keeps_the_last_good_checkpoint(tmp_path):
    """The weights become infinite in step 3; its gradient is the first number that is none."""
    from seva_exp.training import dpo

    real = dpo.PreferenceTrainer.compute_loss
    seen: list[int] = []

    def spoiled(self, model, inputs, *args, **options):
        loss = real(self, model, inputs)
        if self.state.global_step == 2:
            seen.extend(self.step_rows)
            return loss * torch.tensor(float("inf"))
        return loss

    dpo.PreferenceTrainer.compute_loss = spoiled
    try:
        with pytest.raises(StageError) as caught:
            align(tmp_path / "work")
    finally:
        dpo.PreferenceTrainer.compute_loss = real
    said = str(caught.value)
    assert "at step 3 (samples " in said and "\n" not in said
    assert ", after the update of step 2 (samples " in said
    assert "machine.dtype" not in said  # it is float32 already
    named = said.split("(samples ")[1].split(")")[0].split(", ")
    assert set(named) == {f"s{row}" for row in seen}
    assert len(named) == 2  # the last step of the epoch
    assert "dpo.learning_rate" in said
    # The second may hold the weights that are to blame; after the first a step went well.
    assert left_in(tmp_path / "work") == ["checkpoint-1"]


def test_weights_that_a_step_broke_are_not_gone_on_with(tmp_path):
    """They are numbers still, but nothing that is computed with them is one."""
    spec = SPEC.model_copy(update={"learning_rate": 1e18, "warmup_ratio": 0.5})
    told: list[int] = []
    for _ in range(2):  # step 1 has a learning rate of 0; step 2 is the one to blame
        with pytest.raises(StageError, match=r"align: loss is nan at step 3 .*update of step 2"):
            align(tmp_path / "work", lambda step, row: told.append(step), spec)
        assert left_in(tmp_path / "work") == ["checkpoint-1"]
    assert told == [1, 2, 1, 2]


def test_weights_that_are_no_numbers_stop_the_step_that_made_them(tmp_path):
    """Also the last one, of which there is no next loss to show it."""
    spec = SPEC.model_copy(update={"learning_rate": 1e39, "warmup_ratio": 0.0, "epochs": 1})
    with pytest.raises(StageError, match=r"not finite after the update of step 1 \(samples s\d"):
        align(tmp_path / "work", spec=spec)
    assert not left_in(tmp_path / "work")
    assert not (tmp_path / "work" / "adapter").exists()


def test_a_step_that_is_cut_unevenly_is_the_same_step(tmp_path):
    """Five rows in micro-batches of at most four: three and two."""
    spec = SPEC.model_copy(update={"batch_size": 5, "epochs": 1})
    ways = [{"train_batch_size": most, "checkpoint_minutes": None} for most in (4, 5)]
    uneven, whole = (align(tmp_path / str(i), spec=spec, **way) for i, way in enumerate(ways))
    assert len(whole) == 2
    for one, other in zip(uneven, whole, strict=True):
        for name in ("loss", "grad_norm", "rewards/margins", "lengths/rejected", "num_tokens"):
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


def test_each_epoch_has_an_order_of_its_own(tmp_path, monkeypatch):
    seen: list[int] = []
    real = StepTrainer.get_batch_samples

    def noted(self, *args):
        found = real(self, *args)
        seen.extend(self.step_rows)
        return found

    monkeypatch.setattr(StepTrainer, "get_batch_samples", noted)
    align(tmp_path / "work")
    order = SeededOrder([f"s{i}" for i in range(ROWS)], 0)
    first = list(order)
    order.set_epoch(1)
    assert seen == first + list(order)
    assert first != list(order)


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "trainer_state.json", "adapter_model.safetensors"]
)
def test_of_a_damaged_checkpoint_the_one_before_is_taken(
    killed, undisturbed, tmp_path, capfd, name
):
    """One bit; then both, and training begins anew."""
    work = copied(killed, tmp_path)

    def flip(checkpoint: str) -> None:
        (file,) = (work / "trainer" / checkpoint).rglob(name)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    flip("checkpoint-5")
    assert undamaged(work / "trainer", torch.float32) == work / "trainer" / "checkpoint-4"
    said = capfd.readouterr().err
    assert name in said and "checkpoint-5" in said and "is damaged" in said
    assert list((work / "trainer").glob("damaged-checkpoint-5-*"))
    assert align(work) == undisturbed[0]
    assert adapter(work) == undisturbed[1]


def test_where_every_checkpoint_is_damaged_training_begins_anew(killed, tmp_path):
    work = copied(killed, tmp_path)
    for name in left_in(work):
        (work / "trainer" / name / "scheduler.pt").write_bytes(
            bytes(len((work / "trainer" / name / "scheduler.pt").read_bytes()))
        )
    assert undamaged(work / "trainer", torch.float32) is None


def test_lines_of_the_throughput_that_a_kill_tore_are_left_out(tmp_path):
    from seva_exp.training.throughput import FILE, summary

    whole = '{"step":1,"tokens_per_second":4.0,"peak_memory_gib":1.5}\n'
    (tmp_path / FILE).write_text(whole + '{"step":2,"tok{"step":2,' + "\n" + "\0\0\n" + whole)
    assert summary(tmp_path) == {"tokens_per_second": 4.0, "peak_memory_gib": 1.5}
    (tmp_path / FILE).write_text("")
    assert summary(tmp_path) == {}
