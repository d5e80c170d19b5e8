"""The search for an augmentation, really done by Optuna where it is installed (slow)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
WORDS = [
    "-cn",
    "find_augmentation",
    "data.samples=24",
    "tracker=none",
    "hydra.sweeper.n_trials=3",
    "dpo.warmup_ratio=0",
]


def jobs(folder: Path) -> list[dict]:
    """What became of the trials of the last search."""
    last = max((folder / "runs/multirun").iterdir())
    rows = [json.loads(file.read_text()) for file in (last / "jobs").glob("*.json")]
    return sorted(rows, key=lambda row: row["number"])


@pytest.mark.slow
def test_a_search_finds_the_best_of_its_trials_and_repeats_them_from_the_store(cli, tmp_path):
    done = cli(*WORDS)
    assert done.returncode == 0, done.stderr
    first = jobs(tmp_path)
    values = [row["ended"]["objective"] for row in first]
    assert len(set(values)) == 3
    found = yaml.safe_load(done.stdout.split("sweep: 3 done")[1].partition("\n")[2])
    assert found["best_value"] == max(values)
    again = cli(*WORDS)
    assert again.stdout.count("5 stages, 0 to do, 5 cached") == 3
    assert [r["overrides"] for r in jobs(tmp_path)] == [r["overrides"] for r in first]


@pytest.mark.slow
def test_a_search_without_a_result_says_so_in_one_line_each(cli):
    done = cli(*WORDS, "objective=nosuch")
    assert done.returncode == 2
    assert "objective=nosuch: no such number" in done.stderr
    assert "Traceback" not in done.stderr
    assert "sweep: 3 failed" in done.stdout


@pytest.mark.slow
def test_a_search_that_trains_takes_its_score_from_the_half_that_is_for_choosing(cli, tmp_path):
    words = ["stop_after=null", "objective=benchmark/shapes/chair/chair_s/delta"]
    small = ["benchmark.shapes.images=12", "hydra.sweeper.n_trials=1"]
    done = cli(*WORDS, *words, *small, "hydra.sweeper.direction=minimize")
    assert done.returncode == 0, done.stderr
    assert "seva_exp-shapes-v1+selection" in done.stdout
    [row] = jobs(tmp_path)
    report = json.loads((Path(row["ended"]["run"]) / "report.json").read_text())
    [delta] = [d["value"] for d in report["deltas"] if d["metric"] == "chair_s"]
    assert row["ended"]["objective"] == delta


def test_a_search_without_an_objective_is_refused_before_its_first_trial(cli, tmp_path):
    done = cli(*WORDS, "objective=null")
    assert done.returncode == 2
    assert (
        done.stderr.startswith("seva_exp: objective: a search needs")
        and "\n" not in done.stderr[:-1]
    )
    assert list(tmp_path.iterdir()) == []


def test_the_dry_run_of_a_search_draws_its_trials(cli, tmp_path):
    done = cli(*WORDS, "dry_run=true", env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "dry run: 3 runs" in done.stdout
    assert list(tmp_path.iterdir()) == []
