"""Sweeps as a tracker sees them: Hydra's, grouped; and wandb's own, as its agent runs them."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args, load_sweep_config
from wandb.wandb_agent import Agent

from seva_exp.command.config import RunConfig, parse
from seva_exp.command.job import Job
from seva_exp.core.paths import config_dir, sweeps_dir
from seva_exp.tracking import NoTracker, WandbTracker
from seva_exp.tracking.content import column

FILES = sorted((sweeps_dir().parent / "wandb_sweeps").glob("*"))


def composed(*words: str) -> Any:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", [*words])
    return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize(
    ("overrides", "group"),
    [
        (("dpo.beta=0.3", "+aug=moco", "seed=1"), "aug, dpo.beta"),
        (("-cn", "seva_beta", "dpo.beta=0.3", "+aug=moco"), "seva_beta"),
    ],
)
def test_the_runs_of_a_sweep_are_a_group(overrides: tuple[str, ...], group: str) -> None:
    values = composed("+aug=moco", "dpo.beta=0.3")
    swept = ("dpo.beta", "+aug")
    wanted = Job(values, overrides, swept).wanted()
    assert wanted.tracker == WandbTracker(group=group)
    values["name"] = "mine"
    assert Job(values, overrides, swept).wanted().tracker == WandbTracker(group=group)
    values["tracker"]["group"] = "ours"
    assert Job(values, overrides, swept).wanted().tracker == WandbTracker(group="ours")
    values["tracker"] = {"kind": "none"}
    assert Job(values, overrides, swept).wanted().tracker == NoTracker()
    values["tracker"] = {"kind": "wandb"}
    assert Job(values, overrides).wanted().tracker == WandbTracker(), "a run alone has no group"


def suggested(config: dict[str, Any]) -> dict[str, Any]:
    """The first run that wandb's own search takes, as JSON brings it to the agent."""
    import sweeps

    chosen = sweeps.next_run(sweeps.SweepConfig(config), []).config
    return dict(json.loads(json.dumps(chosen, default=float)))


def words_of(config: dict[str, Any], args: dict[str, Any]) -> list[str]:
    """The command's overrides."""
    filled = {"${args_no_hyphens}": create_sweep_command_args({"args": args})["args_no_hyphens"]}
    words = [word for part in config["command"] for word in filled.get(part, [part])]
    return words[words.index("seva_exp") + 1 :]


def metrics(wanted: RunConfig) -> list[str]:
    """The names of the changes that a run logs."""
    experiment = wanted.experiment
    return [
        f"benchmark/{column(name, one.protocol_name, experiment.to_json())}"
        f"/{metric.split}/{metric.name}/delta"
        for name, one in experiment.benchmark.items()
        for metric in one.metrics()
    ]


def test_the_files_that_the_docs_name_are_there() -> None:
    docs = (sweeps_dir().parent / "docs" / "wandb.md").read_text(encoding="utf-8")
    named = set(re.findall(r"wandb_sweeps/([\w.]+)", docs))
    assert named == {file.name for file in FILES}


@pytest.mark.filterwarnings("ignore:Valid config keys have changed")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_wandb_takes_the_file_and_its_agents_command_runs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep_config = pytest.importorskip("sweeps.config.cfg")
    config = load_sweep_config(str(file))
    assert config is not None
    assert sweep_config.schema_violations_from_proposed_config(config) == []
    args = suggested(config)
    assert set(args) == set(config["parameters"])
    wanted = parse(composed(*words_of(config, args)))
    assert wanted.experiment.dpo.beta == args["dpo.beta"]["value"]
    step = args["aug.diffusion_noise.step"]["value"]
    assert wanted.experiment.to_json()["aug"]["diffusion_noise"]["step"] == step
    assert config["metric"]["name"] in metrics(wanted)

    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them for good
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    agent = Agent(api=None, queue=None)
    agent._sweep_command = [*config["command"], "dry_run=true"]
    agent._command_run({"run_id": "r1", "program": config["program"], "args": args})
    assert agent._run_processes["r1"].wait(240) == 0
    assert "evaluate.aligned.shapes" in capfd.readouterr().out
