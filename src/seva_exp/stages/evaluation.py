"""From models to numbers: evaluate, compare."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from seva_exp.benchmarks import AnyBenchmark
from seva_exp.digests import FileDigests
from seva_exp.models import AnyModel
from seva_exp.records import BASE, Delta, Prediction, Score, read_jsonl, write_jsonl
from seva_exp.spec import Json
from seva_exp.stages.base import Stage, Workshop
from seva_exp.stages.processes import Job, launch
from seva_exp.stages.training import Trained


@dataclass(frozen=True)
class Evaluate(Stage):
    """One model on one benchmark: ``predictions.jsonl`` and ``scores.jsonl``. ``which`` names the
    model in this run: ``base``, ``aligned`` (the final one), ``round1``, ``stage1`` ..."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 2
    model: AnyModel
    benchmark_name: str
    benchmark: AnyBenchmark
    digests: FileDigests = field(compare=False)
    trained: Trained | None = None
    root: Path | None = field(default=None, compare=False)
    """The data root: where a run reads, no part of what it computes."""
    which: str = BASE

    @property
    def label(self) -> str:
        return f"evaluate.{self.which}.{self.benchmark_name}"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.trained,) if self.trained else ()

    def named(self, found: list[Score]) -> list[Score]:
        """Scores under this run's names of benchmark and model (the artifact may be another
        run's)."""
        return [replace(s, benchmark=self.benchmark_name, model=self.which) for s in found]

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.digests),
            "benchmark": self.benchmark.identity(self.digests, self.root),
            "protocol": self.benchmark.protocol_name,
        }

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.benchmarks.evaluate import conclude

        job, start = Job(self.share, self.label, work, paths, together=False), time.monotonic()
        several = shop.machine.processes > 1
        done = launch(job, shop) if several else [job.task(work, paths, shop)]
        seconds = time.monotonic() - start
        summary, found = conclude(
            self.benchmark, work, model=self.which, name=self.benchmark_name, root=self.root
        )
        write_jsonl(work / "scores.jsonl", found)
        asked = sum(one["asked"] for one in done)
        return {**summary, "questions_per_second": round(asked / seconds, 1)}

    def share(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        """What one process does: it asks the questions on its share of the pictures."""
        from seva_exp.benchmarks.evaluate import ask
        from seva_exp.generation.engine import Engine

        adapter = paths[0] / "adapter" if paths else None
        placement = shop.placement(work)

        def engine() -> Engine:
            return Engine(
                shop.model(self.model, adapter),
                placement.batch_size,
                tokens=placement.generation_tokens,
                neighbours=placement.neighbours,
                warn=placement.warn,
            )

        asked = ask(self.benchmark, engine, placement, self.label, shop.rank, shop.ranks, self.root)
        return {"asked": asked}


@dataclass(frozen=True)
class Compare(Stage):
    """A trained model - base of every metric of one benchmark: ``deltas.jsonl``."""

    name: ClassVar[str] = "compare"
    version: ClassVar[int] = 2
    base: Evaluate
    after: Evaluate
    final: bool = True
    """Whether ``after`` is the run's final model: its comparison is just called by the
    benchmark."""

    @property
    def label(self) -> str:
        which = "" if self.final else f"{self.after.which}."
        return f"compare.{which}{self.base.benchmark_name}"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.base, self.after)

    def named(self, found: list[Delta]) -> list[Delta]:
        """Deltas under this run's names of benchmark and model."""
        name = self.base.benchmark_name
        return [replace(delta, benchmark=name, model=self.after.which) for delta in found]

    def spec(self) -> Json:
        return {"protocol": self.base.benchmark.protocol_name}

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.benchmarks.statistics import deltas

        before, after = (list(read_jsonl(p / "predictions.jsonl", Prediction)) for p in paths)
        metrics = self.base.benchmark.metrics
        found = deltas(metrics, before, after, benchmark=self.base.benchmark_name)
        write_jsonl(work / "deltas.jsonl", found)
        return {"metrics": len(found)}


def read_scores(path: Path) -> list[Score]:
    """The scores of an evaluate artifact."""
    return list(read_jsonl(path / "scores.jsonl", Score))


def read_deltas(path: Path) -> list[Delta]:
    """The deltas of a compare artifact."""
    return list(read_jsonl(path / "deltas.jsonl", Delta))
