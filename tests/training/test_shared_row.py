"""A step on the shared row is TRL's step: loss, every gradient, every metric."""

from __future__ import annotations

from functools import partial

import pytest

from seva_exp.training import DpoTraining
from seva_exp.training.spec import OUR_LOSSES, TRL_LOSSES

from .steps import assert_equal, step
from .tools import preferences, tiny

EVERY = {name: 1.0 for name in OUR_LOSSES}


def spec_of(loss, fast: str) -> DpoTraining:
    smoothing = 0.1 if loss in ("exo_pair", "robust", "aot", "aot_unpaired") else 0.0
    return DpoTraining(
        loss=loss, beta=0.3, label_smoothing=smoothing, batch_size=8, lora_rank=4, fast=fast
    )


def both_ways(tmp_path, loss="sigmoid", checkpointing=False, **data):
    rows = partial(preferences, **data)
    return [
        step(tiny, rows, spec_of(loss, fast), tmp_path / fast, checkpointing)
        for fast in ("on", "off")
    ]


@pytest.mark.parametrize("loss", TRL_LOSSES)
def test_every_loss_of_trl(tmp_path, loss):
    assert_equal(*both_ways(tmp_path, loss, n=3, rejected=(2, 1)))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rejected", [(1,), (3,), (1, 3, 2)])
@pytest.mark.parametrize("n", [1, 4])
def test_numbers_of_answers_and_preferences(tmp_path, n, rejected, checkpointing):
    assert_equal(*both_ways(tmp_path, checkpointing=checkpointing, n=n, rejected=rejected))


def test_our_losses_and_the_views_pictures(tmp_path):
    assert_equal(*both_ways(tmp_path, EVERY, n=3, rejected=(1, 2), views=(2, 0, 1)))
