"""All that needs a real CUDA device: ``make test-gpu``. Each is skipped where there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import checks

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.gpu
SMALL = ["data.samples=16", "benchmark.shapes.images=2", "tracker=none", "dpo.warmup_ratio=0"]
SMALL += ["dpo.batch_size=4", "machine.device=cuda", "machine.dtype=float32"]


@pytest.mark.parametrize("name", checks.CHECKS)
def test_a_check(name, tmp_path):
    checks.run(name, tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="no bitsandbytes")
def test_four_bits(tmp_path):
    checks.four_bits(tmp_path)


def run(folder: Path, *words: str) -> str:
    """``python -m seva_exp`` in an empty folder; what it said."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "seva_exp", *SMALL, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def test_a_whole_run_says_nothing_of_slower_ways(tmp_path):
    """From answers to scores, with recorded steps and the packed sequence."""
    said = run(tmp_path, "+aug=diffusion_noise", "machine.cuda_graphs=on", "dpo.fast=on")
    assert "slower" not in said and "goes on without" not in said


@pytest.mark.gpu(many=2)
def test_two_processes_train_over_nccl_as_one_does(tmp_path):
    losses = []
    for many in (1, 2):
        folder = tmp_path / str(many)
        run(folder, "+aug=diffusion_noise", f"machine.processes={many}", "stop_after=align")
        (metrics,) = folder.glob("runs/store/align/*/metrics.jsonl")
        losses.append([json.loads(line)["loss"] for line in metrics.read_text().splitlines()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu(many=2)
def test_two_jobs_of_a_sweep_have_a_gpu_each(tmp_path):
    """Both are in use at once: the driver is asked while they run."""
    words = ["-m", "hydra/launcher=local_joblib", "+aug=diffusion_noise", "seed=0,1"]
    folder = tmp_path / "sweep"
    folder.mkdir()
    command = [sys.executable, "-m", "seva_exp", *words, *SMALL, "data.samples=200"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    asked = ["nvidia-smi", "--query-compute-apps=gpu_uuid", "--format=csv,noheader"]
    most, output = 0, (folder / "said.txt").open("wb")
    sweep = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    while sweep.poll() is None:
        used = subprocess.run(asked, capture_output=True, text=True).stdout.split()
        most = max(most, len(set(used)))
        try:
            sweep.wait(1)
        except subprocess.TimeoutExpired:
            continue
    assert sweep.returncode == 0, (folder / "said.txt").read_text()[-3000:]
    assert most == 2


@pytest.fixture
def real(monkeypatch):
    """The device, for what the fake one counts."""
    monkeypatch.syspath_prepend(ROOT / "perf")
    from .real import RealDevice

    return RealDevice()


@pytest.mark.gpu(gib=22)
@pytest.mark.parametrize(("rank", "micro"), [(128, 1), (128, 4)])
def test_a_training_of_7b_takes_what_is_estimated(rank, micro, real, tmp_path, monkeypatch):
    """LLaVA-1.5-7B's shapes, random weights: the second step's peak by torch's allocator."""
    from ..fake_gpu.cases import training_memory

    monkeypatch.chdir(tmp_path)
    found = training_memory("7b", rank, micro, True, gpu=real)
    assert found["estimated"] == pytest.approx(found["counted"], rel=0.15)


@pytest.mark.gpu(gib=22)
def test_generation_of_7b_takes_what_is_estimated(real, tmp_path, monkeypatch):
    """The same weights; as many rows as have room. Rows and their memory."""
    from ..fake_gpu.cases import generation_memory

    monkeypatch.chdir(tmp_path)
    found = generation_memory("7b", real.gib, 40, gpu=real)
    assert found["estimated"] == pytest.approx(found["counted"], rel=0.15)
    assert found["estimated_rows"] == pytest.approx(found["rows"], rel=0.15)
