"""What a run tells those who watch it (console, report page, tracker): a listener and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seva_exp.core.records import Report, StageResult
from seva_exp.core.spec import Json
from seva_exp.stages.shown import Answered as Answered
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
    notes: tuple[str, ...] = ()
    """What else a person should know before it runs: what is left out, what a judge will cost."""


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
    links: dict[str, str] = field(default_factory=dict)
    """Name in the run's folder -> file of a stage, for what the run is about (adapter, pairs)."""
    answered: tuple[Answered, ...] = ()
    """Of every benchmark that both the base and the final model were measured on."""

    @property
    def pairs_of(self) -> str:
        """The stage whose pairs are counted and shown where there are several (``pairs.round2``),
        else empty."""
        label = self.links.get("pairs.jsonl", "").split("/")[0]
        return "" if label == "pairs" else label


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
    """Several listeners as one."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._all = listeners

    def planned(self, plan: Plan) -> None:
        for listener in self._all:
            listener.planned(plan)

    def stage_started(self, stage: PlannedStage) -> None:
        for listener in self._all:
            listener.stage_started(stage)

    def waiting(self, stage: PlannedStage) -> None:
        for listener in self._all:
            listener.waiting(stage)

    def warned(self, text: str) -> None:
        for listener in self._all:
            listener.warned(text)

    def stage_skipped(self, stage: PlannedStage, reason: str) -> None:
        for listener in self._all:
            listener.stage_skipped(stage, reason)

    def logged(self, stage: str, step: int, values: Json) -> None:
        for listener in self._all:
            listener.logged(stage, step, values)

    def stage_finished(self, result: StageResult, metrics: Json) -> None:
        for listener in self._all:
            listener.stage_finished(result, metrics)
