"""W&B, for real but offline: what it is told, once, quietly, and without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from wandb.sdk.lib.config_util import save_config_file_from_dict

from seva_exp.benchmarks import BENCHMARKS
from seva_exp.core.records import StageResult
from seva_exp.inputs.images import open_image
from seva_exp.tracking import (
    AnyTracker,
    CsvTracker,
    MlflowTracker,
    NoTracker,
    TensorboardTracker,
    TrackioTracker,
    WandbTracker,
    content,
    make_listeners,
)
from seva_exp.tracking.wandb_sink import WandbSink

from .played import (
    KEY,
    MADE,
    OFFLINE,
    RUN_ID,
    STAGES,
    a_plan,
    an_outcome,
    of_type,
    play,
    records,
    summary,
)


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no settings of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def align_steps(rows: list[dict[str, Any]]) -> list[int]:
    items = [row["item"] for row in of_type(rows, "history")]
    return [item["align/step"] for item in items if "align/step" in item]


def exit_codes(rows: list[dict[str, Any]]) -> list[int]:
    return [row.get("exit_code", 0) for row in of_type(rows, "exit")]


def test_a_run_is_mirrored_once_and_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run one"
    play(a_plan(run), tmp_path / "store", live=5)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"W&B: offline, run {RUN_ID} (tracker.mode=offline). To upload: wa")
    assert said.err.count("\n") == 1 and "wandb sync '" in said.err
    rows = records(run)
    (head,) = of_type(rows, "run")
    assert head["run_id"] == RUN_ID and head["project"] == "proj" and head["display_name"] == "demo"
    config = head["config"]["update"]
    assert config["generation"] == {"max_new_tokens": 48, "servers": {"0": {"port": 1}}}
    assert config["run_key"] == KEY and config["views"] == "moco"
    assert config["model"] == {"kind": "hub", "path": "org/llava-1.5-7b-hf"}
    assert head["run_group"] == "g" and head["job_type"] == "align"
    assert head["tags"] == ["a", "seva", "moco", "llava-1.5-7b-hf"]
    assert align_steps(rows) == [1, 2, 3, 4, 5]
    first = next(r["item"] for r in of_type(rows, "history") if "align/step" in r["item"])
    assert first["align/loss"] == pytest.approx(0.69) and "align/note" not in first
    axes = [metric for metric in of_type(rows, "metric") if metric.get("glob_name") == "align/*"]
    assert axes[0]["step_metric"] == "align/step"
    assert exit_codes(rows) == [0]


def test_scores_pictures_and_stages_are_there(tmp_path: Path) -> None:
    play(a_plan(tmp_path / "run"), tmp_path / "store", live=5)
    rows = records(tmp_path / "run")
    values = summary(rows)
    scores = "benchmark/shapes/all/CHAIRi"
    assert [values[f"{scores}/{one}"] for one in ("base", "aligned", "delta")] == [26, 25, -1]
    assert values[f"{scores}/aligned/low"] == 24 and values[f"{scores}/delta/p"] == 0.01
    assert values["stage/answers.clean/rate"] == 2.5
    assert values["stage/align/dropped/equal"] == 3
    assert values["pairs/dropped/equal"] == 3
    assert values["scores.nrows"] == 2
    assert "chosen: a dog\nrejected (moco): a cat" in values["examples/clean.captions"][0]
    assert values["examples/moco.count"] == 1
    folder = next((tmp_path / "run" / "wandb").glob("offline-run-*"))
    for name in values["examples/clean.filenames"] + values["examples/moco.filenames"]:
        with Image.open(folder / "files" / name) as image:
            assert image.size == (72, 72)
    (table,) = [one for one in of_type(rows, "artifact") if one["type"] == "run_table"]
    staged = table["manifest"]["contents"][0]["local_path"]
    assert Path(staged).is_relative_to(tmp_path / "run" / "wandb")


def test_pairs_and_adapter_are_artifacts_that_tell_what_they_come_from(tmp_path: Path) -> None:
    play(a_plan(tmp_path / "run"), tmp_path / "store", live=5)
    made = {
        one["name"]: one
        for one in of_type(records(tmp_path / "run"), "artifact")
        if one["type"] in ("dataset", "model")
    }
    assert list(made) == ["pairs", "adapter"]
    files = [one["local_path"] for m in made.values() for one in m["manifest"]["contents"]]
    assert files == [str(tmp_path / "run" / name) for name in MADE], "no copies"
    assert set(made["adapter"]["aliases"]) == {"latest", "a" * 12}
    metadata = json.loads(made["adapter"]["metadata"])
    assert metadata["inputs"] == {"pairs": "p" * 64} and metadata["tags"][0] == "seva"


class Told:
    """Notes what an online W&B run is told of artifacts (no server is at hand)."""

    dir = "."

    def __init__(self) -> None:
        self.said: list[tuple[str, str, list[str]]] = []

    def use_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.said.append(("input", artifact.name, aliases))

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.said.append(("output", artifact.name, aliases))


def test_online_what_an_earlier_run_made_is_an_input(tmp_path: Path) -> None:
    outcome = an_outcome(a_plan(tmp_path / "run", cached=("pairs",)))
    sink = WandbSink(WandbTracker())
    sink._mode, sink._run = "online", Told()
    sink.keep(content.made(outcome))
    assert sink._run.said == [
        ("input", "pairs", ["p" * 12]),
        ("output", "adapter", ["latest", "a" * 12]),
    ]
    without = WandbSink(WandbTracker(artifacts=False))
    without._mode, without._run = "online", Told()
    without.keep(content.made(outcome))
    assert without._run.said == []


def test_two_protocols_are_never_one_column() -> None:
    usual = {name: {"kind": name} for name in BENCHMARKS}
    for name, cls in BENCHMARKS.items():
        protocol = cls().protocol_name
        assert content.column(name, protocol, {"benchmark": usual}) == name
        assert content.column(name, f"{protocol}+dar", {"benchmark": usual}) != name


def test_what_a_run_was_for_is_its_job_type(tmp_path: Path) -> None:
    plan = a_plan(tmp_path)
    kinds = [content.job_type(replace(plan, stages=plan.stages[:n])) for n in (1, 2, 3, 4)]
    assert kinds == ["answers", "pairs", "align", "align"]
    only_base = [replace(plan.stages[0], name="evaluate.base.shapes", kind="evaluate")]
    assert content.job_type(replace(plan, stages=tuple(only_base))) == "evaluate"


def test_under_an_agent_the_run_is_the_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``wandb agent`` starts it: id and project are its own, the name tells what it chose."""
    chosen = tmp_path / "config.yaml"
    save_config_file_from_dict(str(chosen), {"dpo.beta": {"value": 0.3}})
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(content.__file__).parents[2])])
    code = (
        "from pathlib import Path; from played import WandbTracker, a_plan, play\n"
        "t = WandbTracker(mode='offline')\n"
        "play(a_plan(Path('run')), Path('store'), t, live=2)"
    )
    of_agent = {
        "WANDB_SWEEP_ID": "sw33p",
        "WANDB_RUN_ID": "agentsrun",
        "WANDB_PROJECT": "agents",
        "WANDB_SWEEP_PARAM_PATH": str(chosen),
    }
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, **of_agent},
        timeout=240,
        check=True,
    )
    (head,) = of_type(records(tmp_path / "run"), "run")
    assert head["run_id"] == "agentsrun" and head["project"] == "agents"
    assert head["display_name"] == "demo_beta=0.3" and head["sweep_id"] == "sw33p"
    assert head["run_group"] == "sw33p"
    assert head["config"]["update"]["dpo.beta"] == 0.3
    assert (tmp_path / "store" / "tracking" / "wandb" / "agentsrun.json").exists()


def test_no_secret_reaches_a_file(tmp_path: Path) -> None:
    play(a_plan(tmp_path / "run"), tmp_path / "store", live=5)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]
    assert any(p.suffix == ".wandb" for p in files)
    assert not [p for p in files if b"SECRET" in p.read_bytes()]


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path) -> None:
    store = tmp_path / "store"
    play(a_plan(tmp_path / "first"), store, live=3, fail=True)
    before = records(tmp_path / "first")
    assert exit_codes(before) == [1]
    assert align_steps(before) == [1, 2, 3]
    play(a_plan(tmp_path / "second", cached=("answers.clean",)), store, live=5)
    after = records(tmp_path / "second")
    (head,) = of_type(after, "run")
    assert head["run_id"] == RUN_ID and head["resume"] is True
    assert align_steps(after) == [4, 5]
    steps = [row["step"].get("num", 0) for row in of_type(after, "history")]
    assert steps == [3, 4, 5]
    assert exit_codes(after) == [0]


def test_the_history_of_a_stage_from_the_store_is_replayed_once(tmp_path: Path) -> None:
    store = tmp_path / "store"
    cached = a_plan(tmp_path / "one", cached=("answers.clean", "align"))
    play(cached, store)
    assert align_steps(records(tmp_path / "one")) == [1, 2, 3, 4, 5]
    play(a_plan(tmp_path / "two", cached=("answers.clean", "align")), store)
    assert align_steps(records(tmp_path / "two")) == []


def test_several_runs_in_one_process_are_several_finished_runs(tmp_path: Path) -> None:
    for i in range(2):
        play(a_plan(tmp_path / str(i), key=str(i) * 64), tmp_path / "store", live=2)
    for i in range(2):
        rows = records(tmp_path / str(i))
        assert of_type(rows, "run")[0]["run_id"] == str(i) * 16
        assert align_steps(rows) == [1, 2, 3, 4, 5]
        assert exit_codes(rows) == [0]


def test_a_complete_run_imports_no_wandb(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    play(a_plan(tmp_path / "one"), store, live=5)
    capfd.readouterr()
    monkeypatch.setitem(sys.modules, "wandb", None)
    play(a_plan(tmp_path / "two", cached=STAGES), store)
    said = capfd.readouterr().err
    assert said.startswith(f"W&B: run {RUN_ID} is already complete: ") and said.count("\n") == 1
    assert str(tmp_path / "one" / "wandb") in said
    assert not (tmp_path / "two" / "wandb").exists()


def test_an_error_of_wandb_is_one_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    play(a_plan(tmp_path / "run"), tmp_path / "store", live=5)
    said = capfd.readouterr().err
    assert said.startswith("W&B: warning: tracking could not start") and said.count("\n") == 1


def test_skipped_stages_are_told_and_the_run_is_complete(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    for folder, cached in (("one", ()), ("two", STAGES[:1])):
        plan = a_plan(tmp_path / folder, cached=cached)
        (listener,) = make_listeners(OFFLINE, store, store.parent)
        listener.planned(plan)
        first, *others = plan.stages
        listener.stage_finished(StageResult(first.name, first.key, first.cached, 1.5), {})
        for stage in others:
            listener.stage_skipped(stage, "no pair is left")
        outcome = an_outcome(plan)
        listener.finished(replace(outcome, training=(), examples=()))
    values = summary(records(tmp_path / "one"))
    assert values["stage/align/skipped"] == "no pair is left"
    assert values["stage/evaluate.aligned/skipped"] == "no pair is left"
    assert exit_codes(records(tmp_path / "one")) == [0]
    assert f"W&B: run {RUN_ID} is already complete" in capfd.readouterr().err
    assert not (tmp_path / "two" / "wandb").exists()


def test_pictures_are_those_that_the_model_saw(tmp_path: Path) -> None:
    Image.new("I;16", (40, 30), 20000).save(tmp_path / "deep.png")
    shown = content.picture(tmp_path / "deep.png", "s1").image
    assert shown.tobytes() == open_image(tmp_path / "deep.png").tobytes()
    missing = content.picture(tmp_path / "none.png", "s1")
    assert missing.caption == "s1\n(no picture: no such file)"


def test_no_tracker_imports_wandb_by_itself(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from seva_exp.tracking import *\n"
        "assert make_listeners(NoTracker(), Path('.'), Path('.')) == []\n"
        "assert make_listeners(WandbTracker(), Path('.'), Path('.'))\n"
        "print([n for n in ('wandb', 'torch', 'jinja2') if n in sys.modules])"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
        cwd=tmp_path,
        timeout=240,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_conf_files_state_the_defaults() -> None:
    folder = Path(__file__).parents[2] / "conf" / "tracker"
    for name, spec in (
        ("none", NoTracker()),
        ("wandb", WandbTracker()),
        ("trackio", TrackioTracker()),
        ("csv", CsvTracker()),
        ("tensorboard", TensorboardTracker()),
        ("mlflow", MlflowTracker()),
    ):
        values = yaml.safe_load((folder / f"{name}.yaml").read_text())
        assert next(iter(values)) == "kind"
        assert values == spec.to_json()
        assert TypeAdapter(AnyTracker).validate_json(json.dumps(values)) == spec
    with pytest.raises(ValidationError):
        WandbTracker(mode="on")  # type: ignore[arg-type]
