"""Tiny checkpoints of the families, written once."""

from __future__ import annotations

from functools import cache

import pytest

from seva_exp.models.vlm import load

from .asking import MACHINE
from .families import build


@pytest.fixture(autouse=True)
def any_family(numbers_in_words) -> None:
    """Every test here may load SmolVLM."""


@pytest.fixture(scope="session")
def spec_of(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: build(name, root / name))


@pytest.fixture
def vlm_of(spec_of):
    """A loaded model per family; loaded anew in each test, since training changes it."""
    return cache(lambda name: load(spec_of(name), MACHINE))
