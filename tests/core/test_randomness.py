"""A random choice depends on (seed, purpose, sample id) and on nothing else."""

from __future__ import annotations

import random

import torch

from seva_exp.core.randomness import python_rng, seed_for, torch_rng


def test_a_seed_is_the_same_in_every_process_and_version():
    assert seed_for(0, "view/moco", "a") == 4068768546697346213


def test_each_part_changes_the_seed_and_parts_cannot_run_into_each_other():
    seeds = [
        seed_for(0, "a", "b"),
        seed_for(1, "a", "b"),
        seed_for(0, "ab", ""),
        seed_for(0, "a", ""),
        seed_for(0, "", "ab"),
        seed_for(10, "a", "b"),
    ]
    assert len(set(seeds)) == len(seeds)


def test_global_state_neither_matters_nor_changes():
    random.seed(1)
    torch.manual_seed(1)
    before = (random.getstate(), torch.get_rng_state())
    first = (python_rng(0, "p", "s").random(), torch.randn(3, generator=torch_rng(0, "p", "s")))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    random.seed(2)
    torch.manual_seed(2)
    second = (python_rng(0, "p", "s").random(), torch.randn(3, generator=torch_rng(0, "p", "s")))
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])
