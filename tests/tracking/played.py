"""A run as a tracker sees it, without running one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.records import Delta, ImageRef, Pair, PairCounts, Report, Score, StageResult
from seva_exp.runs.events import Outcome, PairExample, Plan, PlannedStage
from seva_exp.tracking import AnyTracker, WandbTracker, make_listeners

KEY = "0123456789abcdef" + "f" * 48
RUN_ID = KEY[:16]
PROTOCOL = ShapesBenchmark().protocol_name
STAGES = ("answers.clean", "pairs", "align", "evaluate.aligned")
ROWS = tuple(
    {"stage": "align", "step": i, "loss": 0.7 - i / 100, "note": "text"} for i in range(1, 6)
)
MADE = ("pairs/pairs.jsonl", "align/adapter/adapter_config.json")
CONFIG = {
    "method": {"kind": "seva"},
    "aug": {"moco": {"kind": "moco"}},
    "model": {"kind": "hub", "path": "org/llava-1.5-7b-hf", "api_key": "SECRET-ONE"},
    "benchmark": {"shapes": {"kind": "shapes"}},
    "generation": {"max_new_tokens": 48, "servers": [{"hf_token": "SECRET-TWO", "port": 1}]},
}
OFFLINE = WandbTracker(mode="offline", project="proj", tags=("a",), group="g")


def a_plan(folder: Path, cached: tuple[str, ...] = (), key: str = KEY) -> Plan:
    stages = tuple(
        PlannedStage(name, name[0] * 64, name in cached, kind=name.partition(".")[0])
        for name in STAGES
    )
    return Plan(key, "demo", 0, CONFIG, ("+aug=moco",), stages, folder)


def an_outcome(plan: Plan) -> Outcome:
    plan.dir.mkdir(parents=True, exist_ok=True)
    pictures = [plan.dir / "clean.png", plan.dir / "moco.png"]
    for path in pictures:
        Image.new("RGB", (72, 72), "red").save(path)
    for name in MADE:
        (plan.dir / name).parent.mkdir(parents=True, exist_ok=True)
        (plan.dir / name).write_text(name, encoding="utf-8")
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
    example = PairExample(pair, pictures[0], {"moco": pictures[1]})
    environment = {"device": "cpu", "command": "seva_exp model.api_key=SECRET-THREE"}
    return Outcome(plan, report, (example,), ROWS, {}, environment, "pairs", "align")


def play(
    plan: Plan,
    store: Path,
    tracker: AnyTracker = OFFLINE,
    *,
    live: int = 0,
    fail: bool = False,
    outcome: Outcome | None = None,
) -> None:
    """A run as its listeners see it: ``live`` training steps, then the end or a failure."""
    (listener,) = make_listeners(tracker, store, store.parent)
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
    listener.finished(outcome or an_outcome(plan))


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of the only W&B run under ``folder``."""
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    tool = Path(sys.executable).with_name("wandb")
    done = subprocess.run(
        [str(tool), "leet", "inspect", "--json", str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_type(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row[kind] for row in rows if row["type"] == kind]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for row in of_type(rows, "summary"):
        merged |= row.get("update", {})
    return merged
