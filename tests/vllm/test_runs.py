"""Whole runs answered by the real vLLM (its CPU build): the answers of this process, also for
changed pixels and an adapter; a killed engine changes nothing, and nothing is left behind. The
environment is that of ``python -m seva_exp.vllm install``, made if need be (3.5 GB)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import seva_exp
from seva_exp import Experiment, Machine, Options
from seva_exp.augment import DiffusionNoise, LowResolution
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.errors import StageError
from seva_exp.core.machine import Vllm
from seva_exp.data import ShapesData
from seva_exp.decoding import HfGeneration, VllmGeneration
from seva_exp.training.spec import DpoTraining
from seva_exp.vllm.environment import environment

pytestmark = pytest.mark.slow
VIEWS = {"low": LowResolution(), "noise": DiffusionNoise(step=500)}
KILLS = 5
ANSWERED = '"POST /v1/chat/completions HTTP/1.1" 200'
"""A line of vLLM's log."""


@pytest.fixture(scope="module", autouse=True)
def there(tmp_path_factory):
    """vLLM's environment."""
    found = environment(cuda=False)
    if not found.made:
        try:
            found.install(tmp_path_factory.mktemp("vllm") / "install.log")
        except StageError as error:
            pytest.skip(f"vLLM's environment cannot be made: {str(error).splitlines()[0]}")


def experiment(generation, samples=60, aug=None, **options) -> Experiment:
    options = {"benchmark": {}, "dpo": DpoTraining(warmup_ratio=0)} | options
    data = ShapesData(samples=samples)
    return Experiment(generation=generation, aug=aug or VIEWS, data=data, **options)


def run(folder: Path, what: Experiment, batch_size: int = 64, vllm: Vllm | None = None, **options):
    machine = Machine(
        device="cpu",
        dtype="float32",
        progress="off",
        runs=str(folder),
        batch_size=batch_size,
        vllm=vllm or Vllm(restarts=KILLS),
    )
    return seva_exp.run(what, machine, Options(**options))


def made(report, label: str, file: str = "answers.jsonl") -> bytes:
    return (Path(report.dir) / label / file).read_bytes()


def inside(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder below this one: vLLM and all that it starts, in a run's."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run that nothing disturbs."""
    generation = VllmGeneration(max_new_tokens=48)
    return run(tmp_path_factory.mktemp("calm"), experiment(generation), stop_after="pairs")


def test_answers_are_those_of_this_process_in_every_view(calm, tmp_path):
    here = run(tmp_path, experiment(HfGeneration(max_new_tokens=48)), stop_after="pairs")
    for label in ("answers.clean", "answers.low", "answers.noise"):
        assert made(calm, label) == made(here, label), label
    assert made(calm, "pairs", "pairs.jsonl") == made(here, "pairs", "pairs.jsonl")
    assert not inside(tmp_path)


def test_an_engine_killed_five_times_changes_no_answer(calm, tmp_path):
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        """The engine, each time that a start of it has answered something: the log of the start
        before is whole when a new engine is seen."""
        before: dict[int, int] = {}
        while not done.wait(0.02) and len(killed) < KILLS:
            for engine in engines_in(tmp_path, killed)[:1]:
                logs = [log.read_text() for log in tmp_path.glob("*/vllm.log")]
                answered = sum(text.count(ANSWERED) for text in logs)
                if answered > before.setdefault(engine.pid, answered):
                    killed.append(engine.pid)
                    engine.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        what = experiment(VllmGeneration(max_new_tokens=48))
        disturbed = run(tmp_path, what, batch_size=2, stop_after="pairs")
    finally:
        done.set()
        thread.join()
    assert len(killed) == KILLS
    for label in ("answers.clean", "answers.low", "answers.noise"):
        assert made(disturbed, label) == made(calm, label), label
    assert not inside(tmp_path)


def engines_in(folder: Path, killed: list[int]) -> list[psutil.Process]:
    found = []
    for process in inside(folder):
        with suppress(psutil.Error):
            if process.pid not in killed and "EngineCore" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_the_aligned_model_is_asked_by_its_adapter(tmp_path):
    options = {
        "samples": 200,
        "aug": {"low": LowResolution()},
        "benchmark": {"shapes": ShapesBenchmark(images=12)},
        "dpo": DpoTraining(warmup_ratio=0, learning_rate=2e-3),
    }
    reports = [
        run(tmp_path, experiment(generation, **options))
        for generation in (
            VllmGeneration(max_new_tokens=48, evaluate=True),
            HfGeneration(max_new_tokens=48),
        )
    ]
    for model in ("base", "aligned"):
        served, here = (predictions(report, model) for report in reports)
        assert served == here, model
    base, aligned = (predictions(reports[0], model) for model in ("base", "aligned"))
    assert base != aligned, "the adapter changes answers"
    assert not inside(tmp_path)


def predictions(report, model: str) -> bytes:
    return made(report, f"evaluate.{model}.shapes", "predictions.jsonl")


def test_a_context_that_is_too_short_is_told(tmp_path):
    what = experiment(VllmGeneration(max_new_tokens=48), samples=12)
    with pytest.raises(StageError, match=r"machine\.vllm\.context=52"):
        run(tmp_path, what, vllm=Vllm(context=52), stop_after="answers")
    assert not inside(tmp_path)


def test_sampled_answers_repeat(tmp_path):
    what = experiment(
        VllmGeneration(max_new_tokens=24, temperature=0.7), samples=24, aug={"low": LowResolution()}
    )
    first, second = (run(tmp_path / name, what, stop_after="answers") for name in ("a", "b"))
    assert made(first, "answers.clean") == made(second, "answers.clean")
    assert not inside(tmp_path)


def test_the_script_that_measures_counts_equal_answers(tmp_path):
    script = Path(__file__).parents[2] / "perf" / "generation.py"
    words = ["--vllm", "--case", "tiny-pairs", "--rounds", "2", "--scale", "0.1", "--device", "cpu"]
    file = tmp_path / "rows.json"
    subprocess.run([sys.executable, script, *words, "--json", file], check=True)
    [row] = json.loads(file.read_text())["rows"]
    assert row["answers"] == 6 and row["equal_answers"] == "6/6"
    assert row["low"] <= row["ratio"] <= row["high"]


def test_a_run_that_is_killed_leaves_nothing_and_goes_on(tmp_path):
    words = [
        sys.executable, "-m", "seva_exp", "+aug=low_resolution", "generation=vllm",
        "data.samples=40", "stop_after=answers", "tracker=none", "machine.device=cpu",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        killed = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log)
    deadline = time.monotonic() + 900
    while not engines_in(tmp_path, []):
        assert killed.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    killed.kill()
    killed.wait()
    deadline = time.monotonic() + 60
    while inside(tmp_path):
        assert time.monotonic() < deadline, inside(tmp_path)
        time.sleep(0.5)
    after = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert after.returncode == 0, after.stderr
    assert not inside(tmp_path)
