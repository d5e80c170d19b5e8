"""Parameters of which all but a few run with the slow tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(quick: Collection[Any], of: Iterable[Any]) -> list[Any]:
    """For ``pytest.mark.parametrize``: ``of``, marked ``slow`` unless among the ``quick``."""
    return [one if one in quick else pytest.param(one, marks=pytest.mark.slow) for one in of]
