"""Whole command lines on the honest device, in float32: nothing is on the wrong device, the host
waits where it may, and the results are the CPU's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..slow import slow_but
from .allowed import not_allowed
from .stores import compare, without

SMALL = [
    *("data.samples=6", "benchmark.shapes.images=1", "tracker=none", "machine.progress=off"),
    *(
        "generation.max_new_tokens=8",
        "dpo.batch_size=2",
        "dpo.warmup_ratio=0",
        "machine.dtype=float32",
    ),
]
NOISE = ["+aug=diffusion_noise", "aug.diffusion_noise.step=800", *SMALL]
ALIGN = ["stop_after=align"]


class Runs:
    """Command lines on the CPU and on the honest device, each with a store of its own."""

    def __init__(self, fake_gpu, folder: Path) -> None:
        self._ask = fake_gpu
        self.folder = folder

    def __call__(self, device: str, words: list[str], store: Path) -> dict:
        done = self._ask("command", words=[*words, f"machine.store={store}"], device=device)
        assert done["code"] == 0, done["output"]
        for stage in done.get("stages", {}).values():
            assert not_allowed(stage["waits"]) == []
        return done

    def differences(self, words: list[str], folder: Path) -> list[str]:
        """Between a run on the CPU and one on the honest device, each in its store."""
        self("cpu", words, folder / "cpu")
        self("cuda", words, folder / "cuda")
        return compare(folder / "cpu", folder / "cuda")


@pytest.fixture(scope="module")
def runs(fake_gpu, tmp_path_factory) -> Runs:
    return Runs(fake_gpu, tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def default(runs) -> Path:
    """The default run's artifacts, made on the CPU."""
    runs("cpu", NOISE, runs.folder / "default")
    return runs.folder / "default"


def test_the_default_run(runs, default, tmp_path):
    runs("cuda", NOISE, tmp_path / "cuda")
    assert compare(default, tmp_path / "cuda") == []


@pytest.mark.slow
def test_stic_with_its_second_stage(runs, tmp_path):
    words = ["method=stic", "sft=stic", *SMALL, "data@instructions=shapes_instruct"]
    assert runs.differences([*words, "instructions.samples=4", "sft.batch_size=2"], tmp_path) == []


@pytest.mark.slow
def test_sampled_answers(runs, tmp_path):
    words = ["generation.temperature=0.7", "generation.top_p=0.9", "generation.logprobs=true"]
    assert runs.differences([*NOISE, *words, "stop_after=pairs"], tmp_path) == []


TRAININGS = {
    "mdpo": ["dpo=mdpo"],
    "projector": ["dpo.train_projector=true"],
    "plain rows": ["dpo.fast=off"],
    "held out": ["dpo.held_out=0.5", "dpo.epochs=2", "machine.train_batch_size=1"],
    "checkpointing": ["machine.gradient_checkpointing=true", "machine.train_batch_size=1"],
}


@pytest.mark.parametrize("name", slow_but(["mdpo", "checkpointing", "held out"], of=TRAININGS))
def test_a_training(name, runs, default, tmp_path):
    """Reference and align anew, on what the CPU has answered."""
    for device in ("cpu", "cuda"):
        without(default, tmp_path / device, "reference", "align")
    assert runs.differences([*NOISE, *TRAININGS[name], *ALIGN], tmp_path) == []


@pytest.mark.slow
def test_a_killed_training_goes_on(runs, default, fake_gpu, tmp_path):
    """From the checkpoint of step 1 of 4."""
    words = [*NOISE, *ALIGN, "dpo.batch_size=1", "dpo.epochs=2", "machine.checkpoint_minutes=0"]
    for name in ("cpu", "cuda"):
        without(default, tmp_path / name, "reference", "align")
    store = f"machine.store={tmp_path / 'cuda'}"
    code, _ = fake_gpu.dies(
        "command", words=[*words, store], device="cuda", mistake="killed_at_step_2"
    )
    assert code == -9
    kept = [path.name for path in (tmp_path / "cuda").glob("align/*/trainer/checkpoint-*")]
    assert kept == ["checkpoint-1"]
    assert runs.differences(words, tmp_path) == []


@pytest.mark.slow
def test_two_ranks(runs, default, tmp_path):
    """They share the answers' shards and the reference's batches, and train together (over gloo
    instead of NCCL). Beside them, the process that started them holds nothing on the first one's
    GPU."""
    for name in ("cpu", "cuda"):
        without(default, tmp_path / name, "answers", "reference", "align")
    words = [*NOISE, *ALIGN, "machine.train_batch_size=1"]
    runs("cpu", words, tmp_path / "cpu")
    done = runs("cuda", [*words, "machine.processes=2"], tmp_path / "cuda")
    assert compare(tmp_path / "cpu", tmp_path / "cuda") == []
    assert done["beside_ranks"] == [[0, 0]] * 8


def test_batch_sizes_that_fit_a_card(fake_gpu, default, tmp_path):
    """``machine=auto``: fewer rows at once than asked for, within the card's memory; the results
    are the CPU's."""
    store, card = tmp_path / "cuda", 2
    words = [*NOISE, "machine=auto", "machine.dtype=float32", "machine.batch_size=100000"]
    done = fake_gpu(
        "command", words=[*words, f"machine.store={store}", *ALIGN], device="cuda", gib=card
    )
    assert done["code"] == 0, done["output"]
    assert max(stage["peak"] for stage in done["stages"].values()) < (card - 0.6) * 2**30
    assert compare(without(default, tmp_path / "cpu", "evaluate", "compare"), store) == []
    shown = fake_gpu("command", words=[*words, "dry_run=true"], device="cuda", gib=card)
    (rows,) = set(re.findall(r"(\d+) of \1 rows at once", shown["output"]))
    assert 64 < int(rows) < 100_000 and "of 2 GiB (GPU)" in shown["output"]


def test_what_does_not_fit_is_refused_before_weights_are_read(fake_gpu, tmp_path):
    words = [*NOISE, f"machine.store={tmp_path}", *ALIGN]
    done = fake_gpu("command", words=words, device="cuda", gib=0.601)
    assert done["code"] == 2 and done["loads"] == []
    assert "of 0.601 GiB (GPU), so it does not fit" in " ".join(done["output"].split())
