"""W&B's variables: used as its users expect, refused by name; a run is tracked all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from seva_exp.tracking import WandbTracker, content, in_sweep
from seva_exp.tracking.wandb_mode import choose_mode
from seva_exp.tracking.wandb_variables import project_of, refused, tags_of

from .played import RUN_ID, records
from .test_wandb import align_steps, no_account  # noqa: F401


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": ("x" * 65,)},
        {"tags": ("",)},
        {"project": "a/b"},
        {"project": "p" * 129},
        {"project": ""},
        {"group": "g" * 129},
        {"group": ""},
        {"entity": "a b"},
    ],
    ids=str,
)
def test_what_wandb_refuses_is_refused_before_work(fields: dict) -> None:
    with pytest.raises(ValidationError):
        WandbTracker(**fields)


def test_longest_names_are_taken() -> None:
    WandbTracker(tags=("x" * 64,), project="p" * 128, group="g" * 128, entity="a-team.b_1")


def test_project_and_tags_come_from_the_variables_where_none_is_given(monkeypatch) -> None:
    assert project_of(WandbTracker()) == "seva_exp"
    monkeypatch.setenv("WANDB_PROJECT", "from-environment")
    monkeypatch.setenv("WANDB_TAGS", f"one, two,,{'x' * 65}")
    assert project_of(WandbTracker()) == "from-environment"
    assert project_of(WandbTracker(project="given")) == "given"
    assert tags_of(("a", "one")) == ("a", "one", "two")
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    assert project_of(WandbTracker()) == "seva_exp"


def test_a_group_of_the_environment_comes_before_the_sweep_s(monkeypatch) -> None:
    assert in_sweep(WandbTracker(), "sweep").group == "sweep"  # type: ignore[union-attr]
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert in_sweep(WandbTracker(), "sweep").group is None  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["true", "1", "True"])
def test_disabled_is_disabled(monkeypatch, value: str) -> None:
    monkeypatch.setenv("WANDB_DISABLED", value)
    assert choose_mode(WandbTracker()) == ("disabled", "WANDB_DISABLED")
    assert choose_mode(WandbTracker(mode="offline"))[0] == "offline", "ours is nearer"
    monkeypatch.setenv("WANDB_DISABLED", "false")
    assert choose_mode(WandbTracker())[0] == "offline"


def test_each_refused_variable_is_named() -> None:
    found = refused(
        {
            "WANDB_CONSOLE": "bogus",
            "WANDB_RUN_GROUP": "g" * 200,
            "WANDB_RUN_ID": "a/b",
            "WANDB_SILENT": "true",
            "WANDB_API_KEY": "short",
            "WANDB_TAGS": f"ok,,{'x' * 65}",
            "WANDB_ENTITY": "a b/c",
            "OTHER": "bogus",
        }
    )
    names = {"CONSOLE", "RUN_GROUP", "RUN_ID", "TAGS", "ENTITY"}
    assert set(found) == {f"WANDB_{name}" for name in names}
    assert refused({"WANDB_TAGS": "ok,,", "WANDB_ENTITY": ""}) == {}
    assert "128 characters" in found["WANDB_RUN_GROUP"]


def test_with_a_refused_variable_the_run_is_tracked_and_the_variable_told(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from played import WandbTracker, a_plan, play\n"
        "play(a_plan(Path('run')), Path('store'), WandbTracker(mode='offline'), live=2)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(content.__file__).parents[2])])
    env = {**os.environ, "PYTHONPATH": path, "WANDB_CONSOLE": "bogus", "WANDB_NAME": "a name"}
    env |= {"WANDB_RUN_GROUP": "mine", "WANDB_PROJECT": "from-environment"}
    env |= {"WANDB_TAGS": f"shorter,,{'x' * 70}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.stderr.startswith(f"W&B: offline, run {RUN_ID} "), done.stderr
    assert "WANDB_TAGS is not used: a tag has at most 64" in done.stderr
    assert "WANDB_CONSOLE is not used: " in done.stderr and done.stderr.count("\n") == 1
    assert align_steps(records(tmp_path / "run")) == [1, 2, 3, 4, 5]
    kept = b"".join(file.read_bytes() for file in (tmp_path / "run").rglob("*.wandb"))
    for said in (b"a name", b"mine", b"from-environment", b"shorter"):
        assert said in kept
