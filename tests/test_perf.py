"""The speed scripts run and their rows have what readers of ``--json`` look for. No time is
tested."""

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


GENERATION = SCRIPT.with_name("generation.py")


@pytest.mark.parametrize("pattern", ["pairs", "evaluation"])
def test_generation_gives_a_row_and_the_same_answers(tmp_path, pattern):
    file = tmp_path / "rows.json"
    command = [sys.executable, GENERATION, "--case", f"tiny-{pattern}", "--rounds", "1"]
    command += ["--device", "cpu", "--scale", "0.07", "--json", file]
    source = str(SCRIPT.parents[1] / "src")
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": source})
    [row] = json.loads(file.read_text())["rows"]
    assert (row["pattern"], row["model"], row["equal_answers"]) == (pattern, "tiny", True)
    assert row["low"] <= row["ratio"] <= row["high"]
    assert row["tokens"] >= row["answers"] == (4 if pattern == "pairs" else 25)


@pytest.mark.slow
def test_generation_in_llava_s_proportions(tmp_path):
    file = tmp_path / "rows.json"
    command = [sys.executable, GENERATION, "--case", "llava-evaluation", "--rounds", "1"]
    command += ["--device", "cpu", "--scale", "0.34", "--json", file]
    source = str(SCRIPT.parents[1] / "src")
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": source})
    [row] = json.loads(file.read_text())["rows"]
    assert row["equal_answers"] and row["answers"] == 18
