"""A user's day with finished runs: list them, ask why, remove one, free the store, verify. What
needs no model answers in under two seconds of work."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from seva_exp.augment import Moco
from seva_exp.core.manifest import read_manifest
from seva_exp.runs.links import followed
from seva_exp.training import DpoTraining

from .test_end_to_end import go, small

pytestmark = pytest.mark.slow
LONGEST = 2.0
"""Seconds of the CPU that a verb takes, imports and all."""


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> Path:
    """The folder of a day with three runs: two that differ in one number, and one of another view
    that stopped at its pairs."""
    folder = tmp_path_factory.mktemp("day")
    store = folder / "runs" / "store"
    go(small(), folder, store, name="first")
    other = DpoTraining(warmup_ratio=0.0, beta=0.3)
    go(small(dpo=other), folder, store, name="stronger")
    go(small(aug={"moco": Moco()}), folder, store, name="moco", stop_after="pairs")
    return folder


def says(day: Path, *words: str, code: int = 0) -> str:
    """What a verb prints, in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "seva_exp.runs", *words]
    done = subprocess.run(command, cwd=day, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < LONGEST, f"{words} took {used:.1f} s of the CPU"
    return done.stdout


def test_ls_shows_what_came_of_them(day):
    rows = json.loads(says(day, "ls", "--json"))
    assert [(row["name"], row["state"]) for row in rows] == [
        ("moco", "done"), ("stronger", "done"), ("first", "done"),
    ]  # fmt: skip
    assert rows[0]["scores"] == [] and {one["metric"] for one in rows[1]["scores"]} >= {"accuracy"}
    assert rows[1]["bytes"]["own"] < rows[1]["bytes"]["store"], "answers are shared"
    text = says(day, "ls")
    assert max(map(len, text.splitlines())) <= 80 and "moco" in text
    shown = json.loads(says(day, "show", "stronger", "--json"))
    assert ["dpo.beta", 0.3, 0.1] in shown["changed"]
    assert {one["name"]: one["cached"] for one in shown["stages"]}["pairs"] is True


def test_why_names_the_number(day):
    (root,) = json.loads(says(day, "why", "compare.shapes", "first", "stronger", "--json"))["roots"]
    assert root["path"][-1] == "align" and root["fields"] == [["dpo.beta", 0.1, 0.3]]
    assert "the same in both" in says(day, "why", "pairs", "first", "stronger")
    assert "view.kind" in says(day, "why", "pairs", "first", "moco")


# Here `ask` and `ship` come, before anything is removed: see tests/side_by_side and tests/ship.


def test_rm_and_gc_free_what_the_removed_run_alone_stood_on(day):
    stages = json.loads(says(day, "show", "moco", "--json"))["stages"]
    kept = {run: folder_of(day, run) for run in ("first", "stronger")}
    before = {label: read_manifest(path) for label, path in artifacts(kept["stronger"]).items()}
    says(day, "rm", "moco", "--yes")
    told = json.loads(says(day, "gc", "--json", "--yes"))
    gone = {Path(row["path"]).name for row in told["garbage"]}
    alone = {one["key"][:20] for one in stages if one["name"] in ("answers.moco", "pairs")}
    assert gone == alone and told["removed"] == len(alone)
    after = {label: read_manifest(path) for label, path in artifacts(kept["stronger"]).items()}
    assert after == before and "nothing to remove" in says(day, "gc")


def folder_of(day: Path, name: str) -> Path:
    return Path(json.loads(says(day, "show", name, "--json"))["run"])


def artifacts(run: Path) -> dict[str, Path]:
    labels = [row["name"] for row in json.loads((run / "report.json").read_text())["stages"]]
    return {label: followed(run / label) for label in labels}


def test_verify_finds_all_as_it_was_written(day):
    assert "all is what was written" in says(day, "verify")
    assert "all is what was written" in says(day, "verify", "stronger")


def test_the_next_run_finds_what_was_kept(day):
    report = go(small(), day, day / "runs" / "store", name="again")
    assert all(stage.cached for stage in report.stages)
