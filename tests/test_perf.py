"""The scripts of perf/ run and their figures have what readers of ``--json`` look for. No time is
tested."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from seva_exp.core.records import ImageRef, Pair

from .fake_gpu.install import missing
from .slow import slow_but

SCRIPT = Path(__file__).parents[1] / "perf" / "dpo_step.py"
STREAM = SCRIPT.with_name("stream.py")
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


@pytest.mark.slow
def test_samples_stream_through_and_memory_is_told(tmp_path):
    """Of so few samples it proves nothing; the test of shards counts objects."""
    file = tmp_path / "memory.json"
    command = [sys.executable, STREAM, "--samples", "500", "--processes", "2", "--json", file]
    source = str(STREAM.parents[1] / "src")
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": source}, capture_output=True)
    found = json.loads(file.read_text())
    assert found["samples"] == 500
    every = {"samples", "answers.clean", "answers.flip", "pairs"}  # a short one may go unseen
    assert {"answers.clean", "answers.flip"} <= found["stages"].keys() <= every
    assert len(found["quarters_mib"]) == 4
    assert done.returncode == int(found["quarters_mib"][3] > 1.05 * found["quarters_mib"][0])


def test_memory_that_grows_is_told():
    stream = runpy.run_path(str(STREAM))
    peaks = stream["quarters"]([(i, i * 2**20) for i in range(100, 201)])
    assert peaks == [124.0, 149.0, 174.0, 200.0]
    assert stream["grew"](peaks) and not stream["grew"]([100.0, 300.0, 300.0, 104.9])


GENERATION = SCRIPT.with_name("generation.py")


@pytest.mark.parametrize("pattern", slow_but(["pairs"], of=["pairs", "evaluation"]))
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


SWEEP = SCRIPT.with_name("sweep.py")


@pytest.mark.slow
def test_a_sweep_against_its_runs_alone(tmp_path):
    file = tmp_path / "rows.json"
    command = [sys.executable, SWEEP, "-cn", "seva_or_finetuning", "--json", file]
    command += ["--", "data.samples=40", "benchmark.shapes.images=10", "dpo.warmup_ratio=0"]
    source = str(SCRIPT.parents[1] / "src")
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": source}, capture_output=True)
    [row] = json.loads(file.read_text())["rows"]
    assert row["runs"] == 2
    assert row["ratio"] == pytest.approx(row["whole_s"] / row["alone_s"], abs=0.01)
    assert done.returncode == int(row["ratio"] > 0.6)


TABLES = SCRIPT.with_name("gpu_tables.py")


@pytest.mark.slow
def test_the_tables_of_a_gpu_are_counted(tmp_path):
    """In two layers; tests/fake_gpu looks at what they say."""
    if reason := missing():
        pytest.skip(reason)
    file = tmp_path / "rows.json"
    source = str(TABLES.parents[1] / "src")
    environment = os.environ | {"PYTHONPATH": source}
    command = [sys.executable, TABLES, "--quick", "--json", file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found.keys() == {"training", "generation", "memory"}
    [step], [steps] = found["training"], found["generation"]
    assert step["float32"] == "0.0%" and step["optimizer"] > step["weights"]
    assert 1 / 8 < steps["waits a step"] < 1 / 4 and int(steps["played"][:-1]) > 80
    held = {row["after"]: row["held"] for row in found["memory"]}
    assert held["release"] == held["nothing"] == 0
    assert done.stdout.count("| release |") == 1


OFFICIAL = SCRIPT.with_name("official.py")


def compared(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    source = str(SCRIPT.parents[1] / "src")
    command = [sys.executable, OFFICIAL, folder, "--answers", "60", *words]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": source}, capture_output=True, text=True
    )


def test_what_is_not_there_is_not_compared(tmp_path):
    done = compared(tmp_path)
    assert done.returncode == 2, done.stderr
    said = "pope first_sentence        not compared: no LLaVA/llava/eval/eval_pope.py\n"
    assert done.stdout.startswith(said)
    assert "differ" not in done.stdout


@pytest.mark.parametrize("code", [0, 1])
def test_a_rule_is_compared_with_the_function_that_is_there(tmp_path, code):
    """With functions of our own in the authors' places: one that agrees and one that does not."""
    file = tmp_path / "lmms-eval/lmms_eval/tasks/chartqa/utils.py"
    file.parent.mkdir(parents=True)
    body = """
    import nothing_that_exists
    def relaxed_correctness(said, target):
        from seva_exp.benchmarks.chartqa import relaxed
        return relaxed(said, target, {}).score == 1 or said.startswith("%s")
    """
    file.write_text(textwrap.dedent(body % ("1" if code else "never said")))
    done = compared(tmp_path, "--show", "1")
    assert done.returncode == code, done.stderr
    (line,) = (x for x in done.stdout.splitlines() if x.startswith("chartqa relaxed"))
    assert line.endswith("of 60 differ")
    assert (" 0 of" in line) == (code == 0)
    assert ("ours" in done.stdout) == (code == 1)


def test_pairs_are_held_against_the_truth():
    counts = runpy.run_path(str(SCRIPT.with_name("pair_truth.py")))["_counts"]
    truth = "The image shows a red star and a blue ring."
    rejected = "The image shows a red star, a green moon and a blue moon."
    asked = ("s", ImageRef("s.png", "-"), "Describe the image.")
    pair = Pair(*asked, truth, (rejected,), ("v",), (), ((),))
    chosen, worse = counts(pair, truth)
    assert (chosen["wrong"], chosen["mentions"]) == (0, 2)
    assert (worse["wrong"], worse["mentions"]) == (2, 3)
