"""A step on the packed sequence is that of TRL alone: its loss, its rows, its reference."""

from __future__ import annotations

from functools import partial

import pytest

from seva_exp import Machine
from seva_exp.models.vlm import load
from seva_exp.training import DpoTraining

from ..models import families
from .steps import assert_equal, step, stock_step
from .tools import preferences, tiny


def both(load, rows, work, checkpointing, **dpo):
    spec = DpoTraining(lora_rank=4, beta=0.3, fast="on", **dpo)
    ours = step(load, rows, spec, work / "ours", checkpointing)
    return ours, stock_step(load, rows, spec, work / "stock", checkpointing)


@pytest.mark.parametrize("rejected", [(1,), (1, 3)])
@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [("sigmoid", 0.0), ("ipo", 0.0), ("robust", 0.1), ("sft", 0.0), ({"sigmoid": 1, "sft": 2}, 0)],
    ids=str,
)
def test_losses(loss, smoothing, rejected, tmp_path):
    rows = partial(preferences, n=3, rejected=rejected)
    assert_equal(*both(tiny, rows, tmp_path, False, loss=loss, label_smoothing=smoothing))


@pytest.mark.parametrize("name", ["gemma3", "paligemma2", "qwen25_vl"])
def test_families_under_checkpointing(name, tmp_path):
    model = families.build(name, tmp_path / "model")
    built = partial(load, model, Machine(device="cpu", dtype="float32"))
    rows = partial(preferences, n=3, rejected=(1, 2))
    assert_equal(*both(built, rows, tmp_path, checkpointing=True))
