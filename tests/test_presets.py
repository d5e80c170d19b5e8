"""Every preset and every sweep runs on the embedded model, cut short."""

from __future__ import annotations

import json

import pytest
import yaml

from seva_exp.paths import options_of, sweeps_dir

SHORT = [
    "model=tiny", "data=shapes", "data.samples=24", "benchmark.shapes.images=4", "tracker=none",
]  # fmt: skip


def command_of(preset: str) -> list[str]:
    """The words behind ``python -m seva_exp`` in the preset's first lines, without its data."""
    file = sweeps_dir().parent / "conf" / "experiment" / f"{preset}.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    command = next(line for line in lines if "python -m seva_exp" in line)
    words = command.split("python -m seva_exp")[1].split()
    assert f"experiment={preset}" in words
    return [word for word in words if not word.startswith(("data.", "instructions."))]


@pytest.mark.parametrize("preset", options_of("experiment"))
def test_every_preset_runs_on_the_embedded_model(cli, tmp_path, shared_store, preset):
    done = cli(*command_of(preset), *SHORT, f"machine.store={shared_store}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    assert {score["model"] for score in report["scores"]} >= {"base", "aligned"}


@pytest.mark.parametrize("preset", options_of("experiment"))
def test_every_preset_shows_its_plan_without_data_and_does_not_run_without(cli, tmp_path, preset):
    words = command_of(preset)
    plan = cli(*words, "dry_run=true")
    assert plan.returncode == 0, plan.stderr
    assert "align" in plan.stdout
    if "data.path" in plan.stdout:
        done = cli(*words)
        assert done.returncode == 2
        assert "data.path: must be set" in done.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sweep", sorted(file.stem for file in sweeps_dir().glob("*.yaml")))
def test_every_sweep_runs_on_the_embedded_model(cli, tmp_path, shared_store, sweep):
    text = (sweeps_dir() / f"{sweep}.yaml").read_text(encoding="utf-8")
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    runs = 1
    for values in params.values():
        runs *= len(str(values).split(","))
    done = cli("-cn", sweep, *SHORT, "stop_after=align", f"machine.store={shared_store}")
    assert done.returncode == 0, done.stderr
    reports = list((tmp_path / "runs").glob("2*/report.json"))
    assert len(reports) == runs
    assert len({json.loads(file.read_text())["key"] for file in reports}) == runs
