"""The speed script runs and its row has what readers of ``--json`` look for. No time is tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "perf" / "dpo_step.py"
KEYS = [
    *("vision", "batch_size", "checkpointing", "negatives", "ratio", "low", "high"),
    *("epoch_ratio", "memory_ratio", "ideal_ratio"),
]


@pytest.mark.slow
def test_one_case_gives_a_row_and_the_same_gradients(tmp_path):
    file = tmp_path / "rows.json"
    command = [sys.executable, SCRIPT, "--case", "light-1", "--rounds", "1", "--device", "cpu"]
    source = str(SCRIPT.parents[1] / "src")
    subprocess.run([*command, "--json", file], check=True, env=os.environ | {"PYTHONPATH": source})
    [row] = json.loads(file.read_text())["rows"]
    assert set(KEYS) <= row.keys()
    assert row["gradient_difference"] < 1e-4


def test_a_case_that_is_none_is_refused():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--case", "light-7", "--device", "cpu"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "light-7: it is one of light-1, " in done.stderr
