"""The packed sequence is exact for every family that it is taken for: loss to 1e-5, every LoRA
gradient to 1e-4 of plain rows, in float32."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import pytest

from seva_exp import Machine
from seva_exp.models.vlm import load
from seva_exp.training import DpoTraining
from seva_exp.training.collate import Preference

from ..models import families
from .steps import assert_equal, step

pytestmark = pytest.mark.usefixtures("numbers_in_words")
MACHINE = Machine(device="cpu", dtype="float32")
SIZES = [(60, 30), (32, 32), (27, 75), (150, 90)]


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory):
    """``loader(name)()`` is a model of the family, new each time."""
    root = tmp_path_factory.mktemp("checkpoints")
    spec_of = cache(lambda name: families.build(name, root / name))
    return lambda name: partial(load, spec_of(name), MACHINE)


def preferences(n: int, rejected: tuple[int, ...]) -> list[Preference]:
    return [
        Preference(
            f"s{i}",
            ["Describe the image.", "What is\nin it?", "", "How many?"][i],
            partial(families.draw, *SIZES[i], i),
            tuple(range(10 + i, 18 + 2 * i)),
            tuple(tuple(range(40 + k, 43 + i + 2 * k)) for k in range(rejected[i % len(rejected)])),
        )
        for i in range(n)
    ]


def both_ways(loader, name, tmp_path, n, rejected, checkpointing, context=0):
    """``context``: tokens that each preference's answers go on behind."""
    specs = (DpoTraining(lora_rank=4, batch_size=8, fast=fast) for fast in ("on", "off"))
    begun = tuple(range(30, 30 + context))
    rows = [replace(row, context=begun) for row in preferences(n, rejected)]
    return [
        step(loader(name), lambda vlm: rows, spec, tmp_path / spec.fast, checkpointing)
        for spec in specs
    ]


EVERY = [*families.FAMILIES, *families.VARIANTS]


@pytest.mark.parametrize("name", EVERY)
def test_a_step_is_trl_s(loader, name, tmp_path):
    """Batch of 4, up to 3 rejected answers, with checkpointing."""
    assert_equal(*both_ways(loader, name, tmp_path, 4, (1, 3), True))


@families.slow_but("gemma3", "paligemma2", "qwen3_vl", of=EVERY)
def test_so_it_is_behind_a_context(loader, name, tmp_path):
    """Quick: families that see pictures, or whole prompts, both ways, and one with three axes."""
    assert_equal(*both_ways(loader, name, tmp_path, 2, (2, 1), False, context=5))


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rejected", [(1,), (3,)])
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("name", EVERY)
def test_every_family_every_way(loader, name, tmp_path, n, rejected, checkpointing):
    assert_equal(*both_ways(loader, name, tmp_path, n, rejected, checkpointing))
