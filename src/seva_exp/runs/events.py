"""What a run tells those who watch it (console, report page, tracker): a listener and its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from seva_exp.core.records import Report, StageResult
from seva_exp.core.spec import Json
from seva_exp.stages.shown import Answered as Answered
from seva_exp.stages.shown import Explained as Explained
from seva_exp.stages.shown import PairExample as PairExample


@dataclass(frozen=True)
class PlannedStage:
    """One row of the plan. ``name`` is the stage's label in the run, e.g. ``answers.clean``."""

    name: str
    key: str
    cached: bool
    forced: bool = False
    inputs: tuple[str, ...] = ()
    """Labels of the stages that it reads."""
    kind: str = ""
    """The name of the stage's class, e.g. ``answers``."""


@dataclass(frozen=True)
class Plan:
    """What a run is about to do. ``key`` identifies the run: the same work has the same key."""

    key: str
    name: str
    seed: int
    config: Json
    overrides: tuple[str, ...]
    stages: tuple[PlannedStage, ...]
    dir: Path
    lacking: tuple[str, ...] = ()
    """Of a dry run: what must be given before it can run. Until then the keys are not final."""
    absent: tuple[str, ...] = ()
    """Of a dry run: what this machine does not have, or not enough of. The keys are final."""
    notes: tuple[str, ...] = ()
    """What else a person should know before it runs: what is left out, what a judge will cost."""

    @property
    def obstacles(self) -> dict[str, tuple[str, ...]]:
        """What stops it, under the words that say what that means."""
        found = {
            "before it can run (the keys are not final until then)": self.lacking,
            "it cannot run on this machine": self.absent,
        }
        return {title: lines for title, lines in found.items() if lines}


@dataclass(frozen=True)
class Outcome:
    """A finished run: its report, and what a page or a dashboard shows of it."""

    plan: Plan
    report: Report
    examples: tuple[PairExample, ...] = ()
    training: tuple[Json, ...] = ()
    """Logged steps of every training stage, e.g. ``{"stage": "align", "step": 1, "loss": 0.693}``;
    the stages in the order of work."""
    stage_metrics: dict[str, Json] = field(default_factory=dict)
    """Per stage label: what its manifest says of it (answers/s, kept share, drops per reason)."""
    environment: Json = field(default_factory=dict)
    """Versions, device, number format, git commit."""
    pairs_stage: str = ""
    """Label of the stage whose pairs are counted and shown; empty where none made any."""
    adapter_stage: str = ""
    """Label of the stage that made the final model's adapter; empty where nothing was trained."""
    answered: tuple[Answered, ...] = ()
    """Of every benchmark that both the base and the final model were measured on."""
    explained: tuple[Explained, ...] = ()
    """Of these, where it was asked what the words rest on."""

    @property
    def links(self) -> dict[str, str]:
        """Name in the run's folder -> file of a stage, for what the run is about."""
        found = {"pairs.jsonl": self.pairs_stage, "adapter": self.adapter_stage}
        return {name: f"{label}/{name}" for name, label in found.items() if label}


class Listener:
    """Base of everything that watches a run. Override what you need; the rest does nothing."""

    def planned(self, plan: Plan) -> None:
        """Before work starts."""

    def stage_started(self, stage: PlannedStage) -> None:
        """A stage that is not cached begins."""

    def waiting(self, stage: PlannedStage) -> None:
        """Another process is computing this stage; this run waits for its result."""

    def warned(self, text: str) -> None:
        """Something that a person should know and that does not stop the run."""

    def noted(self, text: str) -> None:
        """What a stage is about to do."""

    def stage_skipped(self, stage: PlannedStage, reason: str) -> None:
        """A stage has nothing to work on."""

    def logged(self, stage: str, step: int, values: Json) -> None:
        """A stage reports numbers while it works (training steps)."""

    def stage_finished(self, result: StageResult, metrics: Json) -> None:
        """A stage is done or was read from the store; ``metrics`` is its manifest's summary."""

    def finished(self, outcome: Outcome) -> None:
        """The run is complete and its ``report.json`` is written."""

    def failed(self, error: BaseException) -> None:
        """The run stops with this error (also an interruption)."""


class Listeners(Listener):
    """Several listeners as one, each told in turn of what stands between plan and end."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        for name in (
            *("planned", "stage_started", "waiting", "warned", "noted"),
            *("stage_skipped", "logged", "stage_finished"),
        ):
            setattr(self, name, partial(_tell, [getattr(one, name) for one in listeners]))


def _tell(listeners: Sequence[Callable[..., None]], *values: Any) -> None:
    for listener in listeners:
        listener(*values)
