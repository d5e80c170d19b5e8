"""A step on the packed sequence is TRL's step: loss, every gradient, every metric."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from seva_exp.models import branches
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
    shape = {"n": 3, "rejected": (1, 2), "views": (2, 0, 1), "crossed": True}
    assert_equal(*both_ways(tmp_path, EVERY, **shape))


@pytest.mark.parametrize("masked", [False, True])
def test_keys_and_values_that_heads_share_are_not_copied(masked):
    """What is kept for the backward pass are the two themselves."""
    rng = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, 40, 16, generator=rng, requires_grad=True) for heads in (8, 2, 2)
    )
    mask = torch.ones(40, 40).tril(5).bool() if masked else None
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.data_ptr()) or x, lambda x: x
    ):
        out = branches.attend(query, key, value, mask, None, None)
    assert {key.data_ptr(), value.data_ptr()} <= set(kept)
    copied = (x.repeat_interleave(4, dim=1) for x in (key, value))
    expected = branches.attend(query, *copied, mask, None, None)
    torch.testing.assert_close(out, expected)
