"""The estimate of memory against the peaks of this process's own stages, on the CPU: resident
memory while random models of several sizes answer, score and train."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

PERF = Path(__file__).parents[2] / "perf"
CLOSE = 0.15

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_stages_take_what_is_estimated(number):
    perf = runpy.run_path(str(PERF / "memory.py"))
    case = perf["CASES"][number]
    for label, found in perf["measured"](case).items():
        assert found["estimated"] == pytest.approx(found["measured"], rel=CLOSE), (case, label)
