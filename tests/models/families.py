"""The families that conf/model names, each as a tiny checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from seva_exp.models import HubModel

from .checkpoints import checkpoint, draw
from .llavas import LLAVAS, SLIDING
from .others import OTHERS
from .qwens import QWENS

FAMILIES = {**LLAVAS, **QWENS, **OTHERS}
VARIANTS = {"llava_sliding": SLIDING}
"""What no preset names, though training must be right for it."""


each_family = pytest.mark.parametrize("name", FAMILIES)


def slow_but(*quick: str, of: Iterable[str] = FAMILIES) -> pytest.MarkDecorator:
    """Each family; all but ``quick`` in the slow suite."""
    marks = {name: () if name in quick else (pytest.mark.slow,) for name in of}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=m) for n, m in marks.items()])


def build(name: str, folder: Path) -> HubModel:
    """Write the checkpoint of family ``name`` and return its spec, set as conf/model sets it."""
    return checkpoint({**FAMILIES, **VARIANTS}[name], folder)


__all__ = ["FAMILIES", "VARIANTS", "build", "draw", "each_family", "slow_but"]
