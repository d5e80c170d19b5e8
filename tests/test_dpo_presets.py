"""The losses and weights of later papers, from their preset to the adapter, on the embedded
model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from seva_exp import Machine, Options, run
from seva_exp.command.config import parse

from .command.test_config import composed
from .slow import slow_but

SMALL = [
    "data.samples=12", "generation.max_new_tokens=16", "dpo.batch_size=4", "dpo.warmup_ratio=0",
    "dpo.lora_rank=4", "benchmark=none", "tracker=none",
]  # fmt: skip
PRESETS = {
    "lpoi": ("lpoi_masks", {"loss/ordered_images", "loss/anchor"}),
    "re_align": ("another_picture", {"loss/image"}),
    "p2_dpo": ("diffusion_noise", {"loss/calibration"}),
    "symmpo": ("another_picture", {"loss/symmetric", "loss/view_anchor", "loss/margin_gap"}),
    "chip": ("diffusion_noise", {"loss/chip"}),
    "tpo": ("diffusion_noise", {"weights/chosen", "weights/rejected"}),
    "aspo": ("diffusion_noise", {"weights/chosen", "weights/rejected"}),
    "da_dpo": ("swap_words", {"weights/pairs"}),
    "ue_dpo": ("diffusion_noise", {"weights/chosen", "weights/rejected"}),
}
"""Preset -> a source of rejected answers, and what it logs beside DPO's."""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """One for all: the clean answers are asked once."""
    return tmp_path_factory.mktemp("presets") / "store"


def go(folder: Path, store: Path, *words: str, stop: str = "align"):
    experiment = parse(composed(*words, *SMALL)).experiment
    machine = Machine(runs=str(folder), store=str(store), progress="off", device="cpu")
    return run(experiment, machine, Options(stop_after=stop), listeners=[])


def metrics(folder: Path) -> list[dict]:
    lines = (folder / "latest" / "align" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("preset", slow_but(["lpoi", "chip", "aspo", "ue_dpo"], of=PRESETS))
def test_a_preset_trains_the_embedded_model(preset, store, tmp_path):
    aug, logged = PRESETS[preset]
    go(tmp_path, store, f"+aug={aug}", f"dpo={preset}")
    rows = metrics(tmp_path)
    assert rows and all(logged <= row.keys() for row in rows)
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    if preset in ("tpo", "aspo"):  # kept: not all are 1
        lines = (tmp_path / "latest" / "weights" / "weights.jsonl").read_text().splitlines()
        assert {weight for line in lines for weight in json.loads(line)["chosen"]} - {1.0}
    elif preset in ("da_dpo", "ue_dpo"):
        assert all(rows[0][name] != 1.0 for name in logged)


def test_a_sweep_over_beta_makes_weights_and_reference_once(store, tmp_path):
    cached = []
    for beta in (0.1, 0.2):
        report = go(tmp_path, store, "+aug=diffusion_noise", "dpo=tpo", f"dpo.beta={beta}")
        stages = {stage.name: stage.cached for stage in report.stages}
        cached.append((stages["weights"], stages["align"]))
    assert cached[1] == (True, False)


def test_a_second_round_weighs_and_diverges_against_the_round_before(store, tmp_path):
    """Against an adapter, not the base model."""
    go(tmp_path, store, "+aug=diffusion_noise", "dpo=tpo", "method.rounds=2", stop="align.round2")
    go(tmp_path, store, "+aug=diffusion_noise", "dpo=chip", "method.rounds=2", stop="align.round2")
    lines = (tmp_path / "latest" / "align.round2" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["loss/chip"] == pytest.approx(math.log(2), rel=1e-4)
