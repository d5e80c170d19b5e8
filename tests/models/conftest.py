"""Tiny checkpoints of the families, written once."""

from __future__ import annotations

import importlib.util
from functools import cache

import pytest

from seva_exp.models.vlm import load

from .asking import MACHINE
from .families import build


@pytest.fixture(autouse=True)
def numbers_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolVLM's processor insists on a package that spells numbers in video prompts."""
    if importlib.util.find_spec("num2words") is None:
        from transformers.models.smolvlm import processing_smolvlm

        monkeypatch.setattr(processing_smolvlm, "num2words", str)


@pytest.fixture(scope="session")
def spec_of(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: build(name, root / name))


@pytest.fixture
def vlm_of(spec_of):
    """A loaded model per family; loaded anew in each test, since training changes it."""
    return cache(lambda name: load(spec_of(name), MACHINE))
