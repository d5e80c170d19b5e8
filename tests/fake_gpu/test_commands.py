"""Whole command lines on the honest device: nothing is on the wrong device, and the results are
the CPU's."""

from __future__ import annotations

from pathlib import Path

import pytest

from .stores import compare, without

SMALL = [
    *("data.samples=6", "benchmark.shapes.images=1", "tracker=none", "machine.progress=off"),
    *("aug.diffusion_noise.step=800", "generation.max_new_tokens=8", "dpo.batch_size=2"),
]
NOISE = ["+aug=diffusion_noise", *SMALL]
FLOAT32 = "machine.dtype=float32"


class Runs:
    """Command lines on the CPU and on the honest device, each with a store of its own."""

    def __init__(self, fake_gpu, folder: Path) -> None:
        self.ask, self.folder = fake_gpu, folder

    def __call__(self, device: str, words: list[str], store: Path, **more) -> dict:
        return self.ask("command", words=[*words, f"machine.store={store}"], device=device, **more)

    def on_cpu(self, words: list[str], name: str) -> Path:
        done = self("cpu", words, self.folder / name)
        assert done["code"] == 0, done["output"]
        return self.folder / name


@pytest.fixture(scope="module")
def runs(fake_gpu, tmp_path_factory) -> Runs:
    return Runs(fake_gpu, tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def default(runs) -> Path:
    """The default run's artifacts, made on the CPU."""
    return runs.on_cpu([*NOISE, FLOAT32], "default")


def test_the_default_run_is_the_cpu_s(runs, default, tmp_path):
    done = runs("cuda", [*NOISE, FLOAT32], tmp_path / "cuda")
    assert done["code"] == 0, done["output"]
    assert compare(default, tmp_path / "cuda") == []


ALIGNS = {
    "mdpo": ["dpo=mdpo"],
    "projector": ["dpo.train_projector=true"],
    "plain rows": ["dpo.fast=off"],
    "checkpointing": ["machine.gradient_checkpointing=true", "machine.train_batch_size=1"],
}


@pytest.mark.parametrize("words", ALIGNS.values(), ids=ALIGNS)
def test_a_training_is_the_cpu_s(words, runs, default, tmp_path):
    """Reference and align anew, on what the CPU has answered."""
    words = [*NOISE, FLOAT32, *words, "stop_after=align"]
    cpu = without(default, tmp_path / "cpu", "reference", "align")
    gpu = without(default, tmp_path / "cuda", "reference", "align")
    for device, store in (("cpu", cpu), ("cuda", gpu)):
        done = runs(device, words, store)
        assert done["code"] == 0, done["output"]
    assert compare(cpu, gpu) == []
