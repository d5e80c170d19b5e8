"""Runs and a store without a model: real artifacts with nothing in them, real folders of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seva_exp.core.manifest import Manifest
from seva_exp.core.records import Delta, PairCounts, Report, Score, StageResult
from seva_exp.core.spec import Json, digest
from seva_exp.core.store import Store
from seva_exp.runs.events import Outcome, Plan, PlannedStage
from seva_exp.runs.folder import RunDir
from seva_exp.runs.holdings import note_use

CONFIG = {"method": {"kind": "seva"}, "aug": {"moco": {"kind": "moco"}}, "model": {"kind": "tiny"}}


def artifact(
    store: Store, stage: str, spec: Json, inputs: dict[str, str] | None = None, size: int = 100
) -> str:
    """Make one; its key."""
    inputs = inputs or {}
    key = digest([stage, spec, list(inputs.values())])

    def work(folder: Path) -> Json:
        (folder / "rows.jsonl").write_text("x" * size)
        (folder / "more").mkdir(exist_ok=True)
        (folder / "more" / "a").write_text("y" * size)
        return {}

    def manifest(seconds: float, summary: Json) -> Manifest:
        return Manifest(stage, 1, key, spec, inputs, {}, seconds, summary)

    store.make(manifest, stage, key, work)
    return key


def begun(
    root: Path,
    store: Store,
    name: str,
    stages: Sequence[tuple[str, str]],
    config: Json | None = None,
) -> tuple[RunDir, Plan]:
    """A run that has just begun, with (label, key) of its stages; what is there is linked."""
    rows = tuple(PlannedStage(label, key, False) for label, key in stages)
    plan = Plan(digest(name), name, 0, config or CONFIG, (f"name={name}",), rows, root)
    folder = RunDir.create(plan)
    note_use(store.root, root)
    for label, key in stages:
        path = store.path(label.partition(".")[0], key)
        if path.exists():
            folder.link(label, path)
    return folder, plan


def done(root: Path, store: Store, name: str, stages: Sequence[tuple[str, str]], **more) -> Path:
    """A finished run's folder."""
    folder, plan = begun(root, store, name, stages, **more)
    report = Report(
        plan.key, name, 0, str(folder.path),
        tuple(StageResult(label, key, False, 1.0) for label, key in stages),
        PairCounts(50, 41, {"equal": 9}),
        (Score("base", "pope", "pope", "accuracy", 80.0, 79, 81, 100, "p"),
         Score("aligned", "pope", "pope", "accuracy", 83.0, 82, 84, 100, "p")),
        (Delta("pope", "pope", "accuracy", 3.0, 1.0, 5.0, 0.001),),
    )  # fmt: skip
    folder.finished(Outcome(plan, report))
    return folder.path
