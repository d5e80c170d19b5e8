"""Generation in two processes on the CPU: the artifacts of one, whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.data import ShapesData
from seva_exp.decoding import HfGeneration
from seva_exp.experiment import run

ROOT = Path(__file__).parents[1]
NOISE = "answers.diffusion_noise"
SAMPLED = Experiment(
    aug={"diffusion_noise": DiffusionNoise(step=600)},
    data=ShapesData(samples=150),
    generation=HfGeneration(max_new_tokens=16, temperature=0.7),
    benchmark={"shapes": ShapesBenchmark(images=8, describe_and_respond=True)},
)
COMMAND = [
    *(sys.executable, "-m", "seva_exp", "+aug=diffusion_noise", "aug.diffusion_noise.step=600"),
    *("generation.max_new_tokens=16", "generation.temperature=0.7", f"stop_after={NOISE}"),
    *("tracker=none", "machine.device=cpu", "machine.batch_size=2"),
]
"""Of SAMPLED's answers to noise, in small batches, so that there is time to kill."""


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def made(folder: Path, stop_after: str, processes: int, experiment=SAMPLED) -> dict[str, bytes]:
    """The artifact's files by name, without the manifest."""
    machine = Machine(
        device="cpu",
        processes=processes,
        store=str(folder / "store"),
        runs=str(folder / "runs"),
        progress="off",
    )
    report = run(experiment, machine, Options(stop_after=stop_after))
    return contents(Path(report.dir) / stop_after)


def contents(artifact: Path) -> dict[str, bytes]:
    files = (file for file in artifact.resolve().rglob("*") if file.is_file())
    found = {str(f.relative_to(artifact.resolve())): f.read_bytes() for f in files}
    assert not any(name.startswith("parts") for name in found)
    return {name: content for name, content in found.items() if name != "manifest.json"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The answers of one process."""
    return made(tmp_path_factory.mktemp("one"), NOISE, 1)


def test_two_processes_answer_as_one(undisturbed, tmp_path):
    found = made(tmp_path, NOISE, 2)
    assert len(found) == 1 + 48 + 1
    assert found == undisturbed


def test_two_processes_evaluate_as_one(tmp_path):
    """With a description before the questions; pictures are shared, so 3 to one, 2 to the other."""
    benchmark = ShapesBenchmark(images=5, describe_and_respond=True)
    experiment = SAMPLED.model_copy(update={"benchmark": {"shapes": benchmark}})
    one, two = (
        made(tmp_path / str(n), "evaluate.base.shapes", n, experiment=experiment) for n in (1, 2)
    )
    assert one.keys() == {"predictions.jsonl", "descriptions.jsonl", "scores.jsonl"}
    assert two == one


def test_more_processes_than_gpus_are_refused_before_work(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    machine = Machine(processes=3, store=str(tmp_path / "store"), runs=str(tmp_path / "runs"))
    with pytest.raises(InputError, match=r"machine.processes=3: this machine has 2 GPUs"):
        run(SAMPLED, machine)
    assert not (tmp_path / "store").exists()


def started(folder: Path, samples: int, processes: int) -> subprocess.Popen:
    """The command, in a process group of its own."""
    words = [f"data.samples={samples}", f"machine.processes={processes}"]
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def journaled(folder: Path) -> int:
    """Batches in the journals of processes that work."""
    journals = folder.glob("runs/store/answers/*.partial/parts/journal-*.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in journals if file.exists())


def wait_for(done, process: subprocess.Popen) -> None:
    end = time.monotonic() + 240
    while not done():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "nothing was answered"
        time.sleep(0.02)


def a_rank(process: subprocess.Popen) -> int:
    """The process id of rank 1."""
    ranks = psutil.Process(process.pid).children(recursive=True)
    return next(one.pid for one in ranks if one.environ().get("RANK") == "1")


def answers(folder: Path) -> dict[str, bytes]:
    return contents(folder / "runs" / "latest" / NOISE)


@pytest.mark.slow
def test_a_rank_that_dies_is_named_with_its_samples_and_one_process_goes_on(undisturbed, tmp_path):
    process = started(tmp_path, 150, 2)
    wait_for(lambda: journaled(tmp_path) >= 3, process)
    os.kill(a_rank(process), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"{NOISE}: process 1 died (SIGKILL" in said
    assert "; it was on 64 samples from shapes-" in said or "; it was on 22 samples from" in said
    assert "the same command resumes, with any number of processes" in said
    assert journaled(tmp_path) >= 3, "what both had is kept"
    assert made(tmp_path / "runs", NOISE, 1) == undisturbed
    assert not list(tmp_path.glob("runs/store/answers/*.partial")), "it went on in the same folder"


@pytest.mark.slow
def test_no_rank_outlives_a_run_that_is_killed(tmp_path):
    process = started(tmp_path, 150, 2)
    wait_for(lambda: journaled(tmp_path) >= 1, process)
    ranks = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(ranks, timeout=20)
    for one in alive:
        one.kill()
    assert ranks and not alive


@pytest.mark.slow
def test_five_kills_at_random_moments_change_nothing(tmp_path):
    """Of the whole group and of one rank in turn, and with one process in between."""
    experiment = SAMPLED.model_copy(update={"data": ShapesData(samples=700)})
    expected = made(tmp_path / "one", NOISE, 1, experiment)
    rng, kept = random.Random(time.time_ns()), []
    for number in range(5):
        process = started(tmp_path, 700, 2)
        before = journaled(tmp_path)
        wait_for(lambda before=before: journaled(tmp_path) not in (0, before), process)
        time.sleep(rng.random())  # on two idle cores 700 samples take about ten seconds
        assert process.poll() is None, "it was over before it could be killed"
        if number % 2:
            os.kill(a_rank(process), signal.SIGKILL)
            assert process.wait(timeout=120) == 1
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        kept.append(finished(tmp_path))
    assert kept == sorted(kept), "no finished shard is lost"
    process = started(tmp_path, 700, 2)
    assert process.wait(timeout=600) == 0, process.stderr.read()
    assert answers(tmp_path) == expected


def finished(folder: Path) -> int:
    """Answers in shards that are finished, or in journals."""
    parts = folder.glob("runs/store/answers/*.partial/parts")
    count = 0
    for part in parts:
        count += sum(f.read_bytes().count(b"\n") for f in part.glob("[0-9]*.jsonl"))
        for journal in [*part.glob("journal-*.jsonl"), *part.glob("before.jsonl")]:
            whole = journal.read_bytes().rpartition(b"\n")[0].splitlines()
            count += sum(len(json.loads(line)) for line in whole)
    return count
