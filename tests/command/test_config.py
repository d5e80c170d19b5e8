"""Every conf file composes and builds; YAML and Python defaults agree; mistakes are named."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import SOURCES, DiffusionNoise
from seva_exp.benchmarks import OFFICIAL, ShapesBenchmark
from seva_exp.command.config import parse
from seva_exp.core.paths import config_dir, options_of, sweeps_dir
from seva_exp.experiment import graph
from seva_exp.models import TinyModel

GROUPS = sorted(folder.name for folder in config_dir().iterdir() if folder.is_dir())


def composed(*overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", list(overrides))
    return OmegaConf.to_container(config, resolve=True)


def override_for(group: str, name: str) -> list[str]:
    """A plan needs a negative view, unless the choice brings its own, and no data."""
    if group == "aug":
        return [f"+aug={name}"]
    if group == "score":
        two = ["+score=[agreement,implicit_reward]", "method.rounds=2"]
        return ["method=best_of_k", *(two if name == "implicit_reward" else [f"+score={name}"])]
    if (group, name) == ("method", "best_of_k"):
        return [f"{group}={name}", "+score=agreement"]
    if (group, name) == ("dpo", "agreement"):
        return [f"{group}={name}", "+aug=moco", "ambiguity=weak"]
    if (group, name) in (("method", "hardest_of"), ("method", "curriculum")):
        return [f"{group}={name}", "+aug=noise_steps"]
    if (group, name) == ("dpo", "lpoi"):
        return [f"{group}={name}", "+aug=lpoi_masks"]
    own = group in ("experiment", "method") and name not in ("quick", "seva")
    if group == "benchmark" and name in OFFICIAL and OFFICIAL[name].needs_judge:
        return [f"{group}={name}", "+aug=moco", "judge=server"]
    if (group, name) == ("method", "adapter"):
        return ["method=adapter", f"method.adapter={TinyModel().location()}"]
    if (group, name) == ("data", "pairs"):
        return ["data=pairs"]
    extra = {"sft": ["method=stic"]}.get(group, [] if own else ["+aug=moco"])
    return [f"{group}={name}", *extra]


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in GROUPS for name in options_of(group)]
)
def test_every_config_file_composes_and_builds(group, name):
    values = composed(*override_for(group, name))
    wanted = parse(values)
    stages = graph(wanted.experiment, lambda path: "0")
    assert stages[0].name == ("evaluate" if name == "adapter" else "samples")
    if group in ("model", "generation", "method"):
        assert getattr(wanted.experiment, group).kind == values[group]["kind"]


@pytest.mark.parametrize("sweep", sorted(file.stem for file in sweeps_dir().glob("*.yaml")))
def test_every_sweep_composes(sweep):
    text = (sweeps_dir() / f"{sweep}.yaml").read_text(encoding="utf-8")
    assert f"python -m seva_exp -cn {sweep}" in text.splitlines()[0]
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    assert params


def test_yaml_defaults_are_the_classes_defaults():
    """So that ``Experiment()`` in a notebook is the command's experiment."""
    wanted = parse(composed("+aug=diffusion_noise"))
    assert wanted.experiment == Experiment(aug={"diffusion_noise": DiffusionNoise()})
    assert wanted.machine == Machine()
    assert wanted.options == Options()


def _keys(node: dict, before: str = "") -> list[str]:
    out = []
    for key, value in node.items():
        out.append(f"{before}{key}")
        out += _keys(value, f"{before}{key}.") if isinstance(value, dict) else []
    return out


@pytest.mark.parametrize(
    "file",
    sorted([*config_dir().rglob("*.yaml"), *sweeps_dir().rglob("*.yaml")]),
    ids=lambda file: f"{file.parent.name}/{file.stem}",
)
def test_every_yaml_opens_with_what_it_is_and_comments_its_values(file):
    text = file.read_text(encoding="utf-8")
    lines = re.sub(r"    params:\n(      .*\n)+", "", text).splitlines()  # what a sweep varies
    head = [line for line in lines[:2] if not line.startswith("# @package")]
    assert head[0].startswith("#"), "say what it is first"
    plain = [
        line
        for line in lines
        if ":" in line and not line.lstrip().startswith(("#", "-", "kind:")) and line[-1] != ":"
    ]
    structure = (
        "hydra", "mode:", "path: ", "benchmark: {}",
    )  # fmt: skip
    if file.parent.name == "conf":
        return
    bare = [x for x in plain if "#" not in x and not x.lstrip().startswith(structure)]
    assert not bare, f"values without a comment: {bare}"


def test_two_strengths_of_one_kind_stand_beside_each_other():
    values = composed("+aug.mild={kind: diffusion_noise, step: 300}", "+aug=diffusion_noise")
    assert {n: a.step for n, a in parse(values).experiment.aug.items()} == {
        "mild": 300,
        "diffusion_noise": 500,
    }


def test_lists_of_views_add_up_and_are_independent_of_their_order():
    one = parse(composed("+aug=[diffusion_noise,moco]")).experiment
    two = parse(composed("+aug=[moco,diffusion_noise]")).experiment
    assert set(one.aug) == {"diffusion_noise", "moco"}
    keys = [[s.key for s in graph(e, lambda p: "0")] for e in (one, two)]
    assert keys[0] == keys[1]


BASE = {"aug": {"moco": {"kind": "moco"}}}
WRONG = [
    ({"dpo": {"beta": "abc"}}, "dpo.beta=abc"),
    ({"dpo": {"beta": -1}}, "dpo.beta=-1"),
    ({"dpo": {"beta": True}}, "dpo.beta=true"),
    ({"dpo": {"beta": float("nan")}}, "dpo.beta"),
    ({"dpo": {"betta": 0.2}}, "Did you mean 'beta'"),
    ({"dpo": {"loss": "sigmoidd"}}, "Did you mean 'sigmoid'"),
    ({"dpo": {"lora_modules": ["q_prog"]}}, "dpo.lora_modules.0=q_prog"),
    ({"augg": "x"}, "Did you mean 'aug'"),
    ({"aug": "diffusion"}, "Did you mean 'diffusion_noise'"),
    ({"aug": {"difusion_noise": 3}}, "Did you mean 'diffusion_noise'"),
    ({"aug": {"moco": {"kind": "mocco"}}}, "Did you mean 'moco'"),
    ({"aug": {"diffusion_noise": {"kind": "diffusion_noise", "step": 1000}}}, "step=1000"),
    ({"aug": {"diffusion_noise": {"kind": "diffusion_noise", "stepp": 3}}}, "Did you mean 'step'"),
    ({"aug": {"../x": {"kind": "moco"}}}, "aug.../x"),
    ({"aug": {"clean": {"kind": "moco"}}}, "aug.clean"),
    ({"aug": None}, "+aug=NAME"),
    ({"aug": {}}, "diffusion_noise"),
    ({"seed": "x"}, "seed=x"),
    ({"seed": -1}, "seed=-1"),
    ({"seed": 1.5}, "seed=1.5"),
    ({"name": "a/b"}, "name=a/b"),
    ({"sweep": "nosuch"}, "seva_diffusion_steps"),
    ({"sweep": {"on_eror": "stop"}}, "Did you mean 'on_error'"),
    ({"sweep": {"on_error": "stopp"}}, "Did you mean 'stop'"),
    ({"model": "tiny"}, "model=tiny"),
    ({"model": {"kind": "hub"}}, "model.path: must be set"),
    ({"machine": {"batch_size": 0}}, "machine.batch_size=0"),
    ({"machine": {"device": "gpu"}}, "machine.device=gpu"),
    ({"machine": {"server": {"ur": "x"}}}, "machine.server.ur: no such field. Did you mean 'url'"),
    ({"machine": {"server": {"url": "localhost:8000"}}}, "(Base address, mostly ending in /v1"),
    ({"machine": {"server": {"url": "http://me:word@host/v1"}}}, "url=http://***@host/v1"),
    ({"machine": {"server": {"retries": -1}}}, "machine.server.retries=-1"),
    ({"generation": {"contrast": {"kind": "yes_bias", "at": ["cleen"]}}}, "Did you mean 'clean'"),
    ({"generation": {"contrast": {"kind": "yes_bias", "at": []}}}, "at least 1 item"),
    ({"force": 3}, "force=3"),
    ({"dry_run": "yes"}, "dry_run=yes"),
    ({"benchmark": {"shapes": {"kind": "shapes", "images": 0}}}, "benchmark.shapes.images=0"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_mistake_is_refused_and_named(change, said):
    config = composed("+aug=moco")
    for key, value in change.items():
        mergeable = isinstance(value, dict) and value and key not in ("aug", "model")
        config[key] = {**config.get(key, {}), **value} if mergeable else value
    with pytest.raises(InputError) as caught:
        parse(config)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_whole_number_is_the_same_value_as_its_decimal():
    one, two = (parse(composed("+aug=moco", f"dpo.beta={b}")).experiment for b in ("1", "1.0"))
    assert [s.key for s in graph(one, str)] == [s.key for s in graph(two, str)]


def test_every_field_matters_for_some_key_and_the_machine_for_none():
    """A value that does not change a key would let a stale artifact through."""
    keys = {stage.key for stage in graph(parse(composed("+aug=moco")).experiment, str)}
    for override in (
        "seed=1", "data.samples=7", "generation.max_new_tokens=9", "dpo.beta=0.3", "dpo.epochs=2",
        "dpo.learning_rate=1", "dpo.lora_rank=2", "aug.moco.size=100", "benchmark.shapes.images=3",
        "benchmark.shapes.seed=3", "dpo.loss=ipo", "dpo.lora_modules=[q_proj]",
        "generation.temperature=0.2", "filters=[]", "method.newlines=delete",
    ):  # fmt: skip
        other = {s.key for s in graph(parse(composed("+aug=moco", override)).experiment, str)}
        assert other != keys, override
    for override in (
        "machine.batch_size=1", "machine.runs=elsewhere", "name=x", "tracker=none",
        "machine.server.url=http://127.0.0.1:8000/v1", "machine.server.concurrency=2",
    ):  # fmt: skip
        other = {s.key for s in graph(parse(composed("+aug=moco", override)).experiment, str)}
        assert other == keys, override


def test_what_is_shared_by_the_arms_of_an_ablation():
    def keys(*overrides: str) -> dict[str, str]:
        experiment = parse(composed("+aug=diffusion_noise", *overrides)).experiment
        return {stage.label: stage.key for stage in graph(experiment, str)}

    def changed(*overrides: str) -> set[str]:
        now, before = keys(*overrides), keys()
        return {label for label in before if now[label] != before[label]}

    trained = {"align", "evaluate.aligned.shapes", "compare.shapes"}
    assert changed("dpo.beta=0.5") == trained
    asked = trained | {"answers.diffusion_noise", "pairs", "reference"}
    assert changed("aug.diffusion_noise.step=700") == asked
    assert changed("seed=1") == asked | {"samples", "answers.clean"}
    assert changed("benchmark.shapes.images=5") == trained - {"align"} | {"evaluate.base.shapes"}


def test_all_augmentations_have_a_config_file():
    files = {name: composed(f"+aug={name}")["aug"] for name in options_of("aug")}
    kinds = {name: {one["kind"] for one in views.values()} for name, views in files.items()}
    assert set().union(*kinds.values()) == set(SOURCES)
    assert {name for name, of in kinds.items() if of != {name}} == {
        "another_picture", "color_jitter_seva", "lpoi_masks", "mdpo_crop",
        "noise_steps",
    }  # fmt: skip


def test_version_seed_and_protocol_are_in_the_keys(monkeypatch):
    def stages():
        return {s.label: s for s in graph(parse(composed("+aug=moco")).experiment, lambda p: "0")}

    before = {label: stage.key for label, stage in stages().items()}
    for label, stage in stages().items():
        with monkeypatch.context() as patch:
            patch.setattr(type(stage), "version", 99)
            assert stages()[label].key != before[label], label
    negative, clean = stages()["answers.moco"], stages()["answers.clean"]
    assert replace(negative, seed=1).key != negative.key
    assert replace(clean, seed=1).key == clean.key
    specs = {label: stage.spec() for label, stage in stages().items()}
    monkeypatch.setattr(ShapesBenchmark, "protocol_name", "another")
    for label in ("evaluate.base.shapes", "compare.shapes"):
        assert stages()[label].spec() != specs[label], label
