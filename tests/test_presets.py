"""Every preset and every sweep runs on the embedded model, cut short."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from seva_exp import Machine, Options, run
from seva_exp.command.config import RunConfig, parse
from seva_exp.command.hydra_private import grid
from seva_exp.command.job import sweep_name
from seva_exp.core.paths import config_dir, options_of, sweeps_dir
from seva_exp.experiment.graph import graph
from seva_exp.models import TinyModel

from .scores.clip_folder import tiny_clip
from .slow import slow_but

SHORT = [
    "model=tiny", "data=shapes", "data.samples=12", "benchmark=shapes", "benchmark.shapes.images=2",
    "tracker=none", "dpo.warmup_ratio=0",
]  # fmt: skip


def command_of(preset: str) -> list[str]:
    """The words behind ``python -m seva_exp`` in the preset's first lines, without its data."""
    file = sweeps_dir().parent / "conf" / "experiment" / f"{preset}.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    command = next(line for line in lines if "python -m seva_exp" in line)
    words = command.split("python -m seva_exp")[1].split()
    assert f"experiment={preset}" in words
    files = ("data.", "instructions.", "data_root", "method.scores.clip.path")
    return [word for word in words if not word.startswith(files)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    return str(tiny_clip(tmp_path_factory.mktemp("clip")))


QUICK = {"quick", "seva_7b_paper", "stic_v15_7b_paper"}
"""The others' stages are theirs, with other numbers."""


@pytest.mark.parametrize("preset", slow_but(QUICK, of=options_of("experiment")))
def test_every_preset_runs_on_the_embedded_model(cli, tmp_path, shared_store, clip, preset):
    near = [f"method.scores.clip.path={clip}"] if preset == "csr_7b_paper" else []
    done = cli(*command_of(preset), *SHORT, *near, f"machine.store={shared_store}")
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
        assert "data_root: must be set" in done.stderr, "the paper's benchmarks"
        assert list(tmp_path.iterdir()) == []


SWEEPS = sorted(file.stem for file in sweeps_dir().glob("*.yaml"))
SEARCH = "find_augmentation"


def arms(sweep: str) -> list[list[str]]:
    """The overrides of each of its jobs."""
    text = (sweeps_dir() / f"{sweep}.yaml").read_text(encoding="utf-8")
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    words = [f"{key}={values}" for key, values in params.items()]
    if sweep == SEARCH:  # one point of its space
        words = [re.sub(r"=\w+\(([\w.]+),.*", r"=\1", word) for word in words]
    parsed = OverridesParser.create().parse_overrides(words)
    jobs = grid(parsed)
    return jobs


def composed(sweep: str, *overrides: str) -> RunConfig:
    if sweep == SEARCH:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search_path = f"hydra.searchpath=[file://{config_dir()}]"
    with initialize_config_dir(str(sweeps_dir()), version_base="1.3"):
        config = compose(sweep, [search_path, *overrides])
    return parse(OmegaConf.to_container(config, resolve=True))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_jobs_of_a_sweep_are_as_many_as_it_says_and_all_differ(sweep):
    text = (sweeps_dir() / f"{sweep}.yaml").read_text(encoding="utf-8")
    head = text.split("defaults:")[0].replace("\n# ", " ")
    jobs = arms(sweep)
    if sweep != SEARCH:
        stated = {int(n) for n in re.findall(r"(\d+) runs|(\d+) seeds", head) for n in n if n}
        assert stated == {len(jobs)}
    wanted = [composed(sweep, *job, "data=shapes") for job in jobs]
    lasts = [graph(one.experiment, lambda path: "0")[-1] for one in wanted]
    assert len({stage.key for stage in lasts}) == len(jobs)
    names = {sweep_name(w.experiment.title, j, keys(j)) for w, j in zip(wanted, jobs, strict=True)}
    assert len(names) == len(jobs), "their folders are told apart by name"


def keys(job: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in job]


@pytest.mark.parametrize("sweep", slow_but(SWEEPS[::6], of=SWEEPS))
def test_a_job_of_every_sweep_runs_on_the_embedded_model(tmp_path, shared_store, sweep):
    """Its last one; of those with a second stage both stages."""
    short = [word for word in SHORT if "model" not in word or "model" not in keys(arms(sweep)[-1])]
    job = [word for word in arms(sweep)[-1] if not word.startswith(("data.samples", "model="))]
    wanted = composed(sweep, *job, *short, "benchmark.shapes.images=2")
    experiment = wanted.experiment.model_copy(update={"model": TinyModel()})
    last = "finetune" if experiment.sft else "align"
    options = Options(stop_after=wanted.options.stop_after or last)
    machine = Machine(runs=str(tmp_path), store=str(shared_store), progress="off")
    report = run(experiment, machine, options, listeners=[])
    assert report.stages[-1].name.split(".")[0] == options.stop_after.split(".")[0]


STATED = {
    "seva_7b_paper": {"aug.diffusion_noise.step": 800, "dpo.repeat": 1, "dpo.batch_size": 128,
                      "dpo.warmup_ratio": 0.0, "dpo.train_projector": False,
                      "dpo.lora_rank": 1024, "dpo.learning_rate": 2e-6, "method.newlines": "keep"},
    "seva_13b_paper": {"model.path": "llava-hf/llava-1.5-13b-hf", "aug.diffusion_noise.step": 800},
    "seva_7b_released": {"dpo.repeat": 2, "dpo.warmup_ratio": 0.03, "dpo.train_projector": True,
                         "dpo.projector_learning_rate": None, "method.newlines": "delete"},
    "stic_v15_7b_paper": {"dpo.batch_size": 4, "dpo.learning_rate": 1e-7, "dpo.lora_rank": 128,
                          "dpo.loss.chosen_nll": 1 / 1024, "dpo.projector_learning_rate": 2e-5,
                          "sft.batch_size": 64, "sft.learning_rate": 2e-5,
                          "generation.temperature": 0.2, "generation.max_new_tokens": 1024,
                          "method.weights.bad_prompt": 2, "method.weights.low_resolution": 1},
    "stic_v16_7b_paper": {"model.path": "llava-hf/llava-v1.6-mistral-7b-hf", "dpo.batch_size": 4},
    "stic_v16_7b_released": {"dpo.batch_size": 8, "sft.batch_size": 32,
                             "method.weights.plain_prompt": 2},
    "aspo_7b_paper": {"dpo.weights.kind": "aspo", "aug.diffusion_noise.step": 500,
                      "data.samples": 20000},
    "ue_dpo_7b_paper": {"dpo.weights.kind": "ue_dpo", "dpo.weights.alpha": 0.3,
                        "dpo.weights.tau": 0.4, "dpo.beta": 0.1, "dpo.lora_rank": 128,
                        "dpo.learning_rate": 1e-5, "dpo.epochs": 2,
                        "aug.diffusion_noise.step": 500, "data.samples": 5700},
    "lpoi_7b_paper": {"dpo.loss.ordered_images": 1.0, "dpo.loss.anchor": 1.0,
                      "dpo.batch_size": 64, "dpo.epochs": 1, "aug.lpoi_mask_25.area_max": 0.05},
    "csr_7b_paper": {"method.rounds": 3, "method.mix": "ranks", "dpo.beta": 0.1,
                     "method.scores.clip.weight": 0.9, "method.scores.mean_logprob.weight": 0.1,
                     "dpo.learning_rate": 1e-7, "dpo.lora_rank": 128, "dpo.lora_alpha": 256},
    "iris_7b_paper": {"method.candidates": 5, "method.temperature": 0.7, "data.samples": 5700,
                      "method.scores.implicit_reward.gamma": 0.7, "dpo.loss.image": 1.0,
                      "aug.diffusion_noise.step": 500},
    "p2_dpo_7b_paper": {"dpo.loss.calibration": 0.3, "aug.diffusion_noise.step": 600,
                        "dpo.lora_rank": 32, "dpo.lora_alpha": 32, "dpo.learning_rate": 1e-5,
                        "dpo.epochs": 4, "dpo.beta": 0.1},
    "da_dpo_7b_paper": {"dpo.weights.kind": "da_dpo", "dpo.weights.alpha": 1.0},
    "re_align_7b_paper": {"dpo.loss.sigmoid": 1.0, "dpo.loss.image": 1.0, "dpo.loss.anchor": None},
    "symmpo_7b_paper": {"dpo.beta": 0.5, "dpo.learning_rate": 5e-6, "dpo.loss.symmetric": 0.5},
    "tpo_7b_paper": {"dpo.weights.kind": "tpo", "aug.diffusion_noise.step": 500},
    "rlaif_v_7b_paper": {"method.candidates": 10, "method.rounds": 4, "dpo.beta": 0.1},
}  # fmt: skip
"""What a preset must come to: the numbers of paper and release (facts: seva_stic.md and, from ASPO
on, after_the_papers.md)."""


@pytest.mark.parametrize("preset", STATED)
def test_a_preset_comes_to_its_numbers(preset):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", [f"experiment={preset}"])
    for field, value in STATED[preset].items():
        assert OmegaConf.select(config, field) == value, field
    views = set(config.get("aug") or ())
    if preset == "stic_v16_7b_released":
        assert views == {"bad_prompt", "plain_prompt"}
    counts = [f.get("count") for f in config.filters if f.kind == "down_sample"]
    wanted = {"seva_7b_released": [4300, 6500], "aspo_7b_paper": [16000]}
    assert counts == wanted.get(preset, [8000] if "seva" in preset else [])
