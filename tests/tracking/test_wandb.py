"""W&B, for real but offline: what it is told, once, quietly, and without secrets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.events import Example, Outcome, Plan, PlannedStage
from seva_exp.images import open_image
from seva_exp.records import Delta, ImageRef, Pair, PairCounts, Report, Score, StageResult
from seva_exp.redact import hide, is_secret, without_secrets
from seva_exp.tracking import (
    AnyTracker,
    NoTracker,
    WandbTracker,
    content,
    make_listeners,
    wandb_sink,
)
from seva_exp.tracking.wandb_mode import choose_mode

KEY = "0123456789abcdef" + "f" * 48
RUN_ID = KEY[:16]
PROTOCOL = ShapesBenchmark().protocol_name
STAGES = ("answers.clean", "align", "evaluate.aligned")
ROWS = tuple(
    {"stage": "align", "step": i, "loss": 0.7 - i / 100, "note": "text"} for i in range(1, 6)
)
CONFIG = {
    "method": {"kind": "seva"},
    "aug": {"moco": {"kind": "moco"}},
    "model": {"kind": "hub", "path": "org/llava-1.5-7b-hf", "api_key": "SECRET-ONE"},
    "benchmark": {"shapes": {"kind": "shapes"}},
    "generation": {"max_new_tokens": 48, "servers": [{"hf_token": "SECRET-TWO", "port": 1}]},
}
OFFLINE = WandbTracker(mode="offline", project="proj", tags=("a",), group="g")


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no settings of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def a_plan(folder: Path, cached: tuple[str, ...] = (), key: str = KEY) -> Plan:
    stages = tuple(PlannedStage(name, name[0] * 64, name in cached) for name in STAGES)
    return Plan(key, "demo", 0, CONFIG, ("+aug=moco",), stages, folder)


def an_outcome(plan: Plan) -> Outcome:
    plan.dir.mkdir(parents=True, exist_ok=True)
    pictures = [plan.dir / "clean.png", plan.dir / "moco.png"]
    for path in pictures:
        Image.new("RGB", (72, 72), "red").save(path)
    pair = Pair("s1", ImageRef("clean.png", "0"), "What?", "a dog", ("a cat",), ("moco",), (), ())
    scores = tuple(
        Score(model, "shapes", "all", "CHAIRi", value, value - 1, value + 1, 9, PROTOCOL, "lower")
        for model, value in (("base", 26.0), ("aligned", 25.0))
    )
    report = Report(
        plan.key,
        plan.name,
        0,
        str(plan.dir),
        tuple(StageResult(s.name, s.key, s.cached, 1.5) for s in plan.stages),
        PairCounts(10, 7, {"equal": 3}),
        scores,
        (Delta("shapes", "all", "CHAIRi", -1.0, -1.5, -0.5, 0.01, "lower"),),
    )
    example = Example(pair, pictures[0], {"moco": pictures[1]})
    environment = {"device": "cpu", "command": "seva_exp model.api_key=SECRET-THREE"}
    return Outcome(plan, report, (example,), ROWS, {}, environment)


def play(plan: Plan, store: Path, *, live: int = 0, fail: bool = False) -> None:
    """A run as its listeners see it: ``live`` training steps, then the end or a failure."""
    (listener,) = make_listeners(OFFLINE, store)
    listener.planned(plan)
    for stage in plan.stages:
        if not stage.cached:
            listener.stage_started(stage)
        if stage.name == "align" and not stage.cached:
            for row in ROWS[:live]:
                listener.logged("align", row["step"], row)
            if fail:
                listener.failed(RuntimeError("stop"))
                return
        metrics = {"rate": 2.5, "dropped": {"equal": 3}}
        listener.stage_finished(StageResult(stage.name, stage.key, stage.cached, 1.5), metrics)
    listener.finished(an_outcome(plan))


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of the only W&B run under ``folder``."""
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    tool = Path(sys.executable).with_name("wandb")
    done = subprocess.run(
        [str(tool), "leet", "inspect", "--json", str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_type(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row[kind] for row in rows if row["type"] == kind]


def align_steps(rows: list[dict[str, Any]]) -> list[int]:
    items = [row["item"] for row in of_type(rows, "history")]
    return [item["align/step"] for item in items if "align/step" in item]


def exit_codes(rows: list[dict[str, Any]]) -> list[int]:
    return [row.get("exit_code", 0) for row in of_type(rows, "exit")]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for row in of_type(rows, "summary"):
        merged |= row.get("update", {})
    return merged


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
    staged = of_type(rows, "artifact")[0]["manifest"]["contents"][0]["local_path"]
    assert Path(staged).is_relative_to(tmp_path / "run" / "wandb")


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


class Refusing(BaseHTTPRequestHandler):
    """A W&B host that takes no key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"errors":[{"message":"bad key"}]}')

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("hangs", [False, True])
def test_online_that_fails_becomes_offline_in_the_same_run(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    hangs: bool,
) -> None:
    monkeypatch.setattr(wandb_sink, "START_SECONDS", 3.0)
    monkeypatch.setattr(sys.modules[__name__], "OFFLINE", WandbTracker(mode="online"))
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    plan = a_plan(tmp_path / "run")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
        if not hangs:  # a server that is not served takes connections and never answers
            threading.Thread(target=server.serve_forever, daemon=True).start()
        play(plan, tmp_path / "store", live=5)
        if not hangs:
            server.shutdown()
    said = capfd.readouterr().err
    assert said.startswith(f"W&B: offline, run {RUN_ID} (online failed: "), said
    assert said.count("\n") == 1 and "To upload: wandb sync " in said
    assert [p.name[:11] for p in (plan.dir / "wandb").glob("*run-*")] == ["offline-run"]
    assert align_steps(records(plan.dir)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("WANDB_MODE", "nonsense", "WANDB_MODE=nonsense is none of online, offline, disabled"),
        ("WANDB_BASE_URL", "http://127.0.0.1:99999", "WANDB_BASE_URL is no address like"),
        ("WANDB_BASE_URL", "nonsense", "WANDB_BASE_URL is no address like"),
    ],
)
def test_a_wrong_variable_is_said_and_the_run_is_tracked_offline(
    tmp_path: Path, name: str, value: str, why: str
) -> None:
    code = (
        "import sys; from pathlib import Path; import test_wandb as t\n"
        "t.OFFLINE = t.WandbTracker()\n"
        "t.play(t.a_plan(Path('run')), Path('store'), live=2)"
    )
    # another process: wandb reads the variables once
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(content.__file__).parents[2])])
    env = {**os.environ, "PYTHONPATH": path, "WANDB_API_KEY": "k" * 40}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**env, name: value},
        timeout=90,
    )
    assert done.stderr.startswith(f"W&B: offline, run {RUN_ID} ({why}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert align_steps(records(tmp_path / "run")) == [1, 2, 3, 4, 5]


def test_an_odd_proxy_prints_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:99999")
    assert choose_mode(WandbTracker()) == ("offline", "api.wandb.ai does not answer")
    assert not raised


def test_skipped_stages_are_told_and_the_run_is_complete(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    for folder, cached in (("one", ()), ("two", STAGES[:1])):
        plan = a_plan(tmp_path / folder, cached=cached)
        (listener,) = make_listeners(OFFLINE, store)
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
        "assert make_listeners(NoTracker(), Path('.')) == []\n"
        "assert make_listeners(WandbTracker(), Path('.'))\n"
        "print([n for n in ('wandb', 'torch', 'PIL', 'jinja2') if n in sys.modules])"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_mode_is_chosen_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    auto = WandbTracker()
    assert choose_mode(auto) == ("offline", "no API key found")
    assert choose_mode(WandbTracker(mode="online"))[0] == "offline"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", f"http://{host}")
        (tmp_path / "home" / ".netrc").write_text(f"machine {host} login u password {'k' * 40}\n")
        (tmp_path / "home" / ".netrc").chmod(0o600)
        assert choose_mode(auto) == ("online", "API key found")
    began = time.monotonic()
    assert choose_mode(auto) == ("offline", f"{host} does not answer")
    assert time.monotonic() - began < 2
    monkeypatch.setenv("WANDB_MODE", "online")
    assert choose_mode(auto)[0] == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode(auto)[0] == "disabled"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode(auto) == ("offline", "WANDB_MODE=offline")


def test_conf_files_state_the_defaults() -> None:
    folder = Path(__file__).parents[2] / "conf" / "tracker"
    for name, spec in (("none", NoTracker()), ("wandb", WandbTracker())):
        values = yaml.safe_load((folder / f"{name}.yaml").read_text())
        assert next(iter(values)) == "kind"
        assert values == spec.to_json()
        assert TypeAdapter(AnyTracker).validate_json(json.dumps(values)) == spec
    with pytest.raises(ValidationError):
        WandbTracker(mode="on")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "OPENAI_API_KEY", "token", "hf_token", "password", "db.passwd"]
)
def test_secret_names(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_new_tokens",
        "pad_token",
        "image_token",
        "tokenizer",
        "api_key_env",
        "key",
        "tokens_per_s",
    ],
)
def test_harmless_names(name: str) -> None:
    assert not is_secret(name)


def test_secrets_are_hidden_in_texts_and_dropped_at_any_depth() -> None:
    line = "x model.api_key=abc 'hf_token=a b' beta=1"
    assert hide(line) == "x model.api_key=*** 'hf_token=***' beta=1"
    assert hide("+model.token=a b") == "+model.token=***"
    assert hide("'dpo.beta=0.1' key: 3") == "'dpo.beta=0.1' key: 3"
    assert hide("http://me:pw@host:1/v1") == "http://***@host:1/v1"
    value = {"a": [{"token": "t", "b": ({"password": 1, "c": 2},)}], "n": 1}
    assert without_secrets(value) == {"a": [{"b": ({"c": 2},)}], "n": 1}
    assert value["a"][0]["token"] == "t"
