"""Every preset and every sweep runs on the embedded model, cut short."""

from __future__ import annotations

import json

import pytest
import yaml

from seva_exp.paths import options_of, sweeps_dir

SHORT = [
    "model=tiny", "data=shapes", "data.samples=24", "benchmark.shapes.images=4", "tracker=none",
]  # fmt: skip


@pytest.mark.parametrize("preset", options_of("experiment"))
def test_every_preset_runs_on_the_embedded_model(cli, tmp_path, shared_store, preset):
    head = (sweeps_dir().parent / "conf" / "experiment" / f"{preset}.yaml").read_text().splitlines()
    command = next(line for line in head if "python -m seva_exp" in line)
    words = command.split("python -m seva_exp")[1].split()
    done = cli(*words, *SHORT, f"machine.store={shared_store}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    assert report["scores"]


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
