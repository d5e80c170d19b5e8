"""A run under a fake GPU, stage by stage: what each did on the device, and what it left there."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from seva_exp.decoding.choosing import Chooser
from seva_exp.decoding.scheduler import Scheduler
from seva_exp.experiment.execution import Execution
from seva_exp.stages import loaded
from seva_exp.training.steps import StepTrainer

from .graphs import Graph
from .ledger import Ledger, Work


@dataclass
class StageWork:
    """``before`` and ``after``: bytes that were held. ``waits``: kind, place, how often. ``looks``:
    of what is done between two looks of the host at a decoding its rows, steps, how many of them
    were played, kernels, and waits by kind. ``shares``: of float32 in the matrix
    work of each micro-step of a training."""

    before: int
    after: int = 0
    peak: int = 0
    kernels: int = 0
    float32_share: float = 0.0
    attention: dict[str, int] = field(default_factory=dict)
    waits: list[tuple[str, str, int]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def take(self, work: Work, live: int) -> None:
        found = Counter[tuple[str, str]]()
        for wait, count in work.waits.items():
            found[wait.kind, wait.place] += count
        self.after, self.peak = live, work.peak
        self.kernels, self.float32_share = work.kernels, work.float32_share
        self.attention = dict(work.attention)
        self.waits = [(*which, count) for which, count in sorted(found.items())]


class Watch:
    """Stages that were made, and the bytes held when each model's loading began. Python's own
    collection of cycles is switched off: what is freed is freed by the code."""

    def __init__(self, ledger: Ledger) -> None:
        self.stages: dict[str, StageWork] = {}
        self.loads: list[int] = []
        self._ledger = ledger
        self._now: StageWork | None = None
        self._steps = 0  # of the last look

    def told(self) -> dict[str, Any]:
        return {"stages": {k: asdict(v) for k, v in self.stages.items()}, "loads": self.loads}

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Until the end of the process: its patches are not taken back."""
        make, decode, load = Execution._make, Scheduler._decode, loaded.load_model
        train = StepTrainer.training_step
        StepTrainer.training_step = (  # type: ignore[method-assign]
            lambda *call, **options: self._micro_step(train, *call, **options)
        )
        Execution._make = lambda *call: self._stage(make, *call)  # type: ignore[method-assign]
        Scheduler._decode = lambda *call: self._look(decode, *call)  # type: ignore[method-assign]
        write = Chooser.write
        Chooser.write = lambda *call: self._written(write, *call)  # type: ignore[method-assign]
        loaded.load_model = partial(self._load, load)
        gc.collect()
        gc.disable()
        yield self

    def _stage(self, make: Any, execution: Any, stage: Any, row: Any) -> Any:
        self._now = self.stages[stage.label] = StageWork(self._ledger.live)
        with self._ledger.stretch() as work:
            made = make(execution, stage, row)
        self._now.take(work, self._ledger.live)
        return made

    def _look(self, decode: Any, loop: Any) -> Any:
        rows, played = len(loop._rows), Graph.played
        with self._ledger.stretch() as work:
            decode(loop)
        if self._now is not None:
            look = {"rows": rows, "steps": self._steps, "played": Graph.played - played}
            waits = dict(work.waits_by_kind())
            self._now.looks.append(look | {"kernels": work.kernels, "waits": waits})

    def _written(self, write: Any, chooser: Any, rows: Any, found: Any) -> None:
        self._steps = len(found)
        write(chooser, rows, found)

    def _micro_step(self, train: Any, *call: Any, **options: Any) -> Any:
        with self._ledger.stretch() as work:
            loss = train(*call, **options)
        if self._now is not None:
            self._now.shares.append(work.float32_share)
        return loss

    def _load(self, load: Any, *call: Any) -> Any:
        self.loads.append(self._ledger.live)
        with self._ledger.kind("weights"):
            return load(*call)
