"""The stages: what each takes, makes and depends on. Each is a function from a spec and input
artifacts to one artifact folder; its key is the hash of (stage, version, spec, inputs' keys).

A stage's ``version`` is raised when its results change; a test pins (version, source).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from seva_exp.augment import AnyAugmentation
from seva_exp.benchmarks import AnyBenchmark
from seva_exp.data import NOT_DRAWN, AnyData
from seva_exp.digests import FileDigests
from seva_exp.errors import InputError, StageError
from seva_exp.generation import AnyGeneration, EqualFilter
from seva_exp.interfaces import Placement, Progress
from seva_exp.machine import Machine
from seva_exp.models import AnyModel
from seva_exp.records import (
    CLEAN,
    Answer,
    Delta,
    Drop,
    Pair,
    Prediction,
    Sample,
    Score,
    read_jsonl,
    write_jsonl,
)
from seva_exp.spec import Json, digest
from seva_exp.training import DpoTraining

if TYPE_CHECKING:
    from seva_exp.models.vlm import Vlm

TOLD = 20
"""Unusable samples that are named on the console; drops.jsonl names all."""
PREVIEWS = 48
"""Pictures of what a negative view showed that an answers stage keeps for the report."""


@dataclass
class Workshop:
    """What stages work with: nothing here changes a result."""

    machine: Machine
    digests: FileDigests
    progress: Progress
    log: Callable[[str, int, Json], None]
    _loaded: tuple[str, Vlm] | None = None

    def model(self, spec: AnyModel, adapter: Path | None = None) -> Vlm:
        """The loaded model; one is kept, so that stages in a row load it once."""
        name = digest([spec.to_json(), str(adapter)])
        if self._loaded is None or self._loaded[0] != name:
            self.release()
            self._loaded = (name, load_model(spec, self.machine, adapter))
        return self._loaded[1]

    def release(self) -> None:
        """Forget the loaded model (training changes it in place)."""
        self._loaded = None

    def placement(self, work: Path) -> Placement:
        """The machine's numbers for a stage that works in ``work``."""
        machine = self.machine
        from seva_exp.machine import resolve_device

        return Placement(
            device=str(resolve_device(machine)),
            batch_size=machine.batch_size,
            train_batch_size=machine.train_batch_size,
            gradient_checkpointing=machine.gradient_checkpointing,
            progress=self.progress,
            work=work,
        )


def load_model(spec: AnyModel, machine: Machine, adapter: Path | None) -> Vlm:
    """Load a model; what the libraries say of a failure becomes one error."""
    from seva_exp.models.vlm import load

    try:
        return load(spec, machine, adapter)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, InputError):
            raise
        raise StageError(f"model {spec.location()}: cannot be loaded: {error}") from error


@dataclass(frozen=True)
class Stage(ABC):
    """Base of the stages. ``paths`` given to ``run`` are those of ``inputs``, in order."""

    name: ClassVar[str]
    """Folder in the store, and the first part of the label."""
    version: ClassVar[int]
    """Raised when the same spec gives another result."""

    @property
    def label(self) -> str:
        """Name in a run, such as ``answers.clean``."""
        return self.name

    @property
    def inputs(self) -> tuple[Stage, ...]:
        """The stages whose artifacts this one reads."""
        return ()

    @abstractmethod
    def spec(self) -> Json:
        """Everything that the result depends on, besides the inputs."""

    @cached_property
    def key(self) -> str:
        """The content address: equal work has an equal key."""
        return digest(
            {
                "stage": self.name,
                "version": self.version,
                "spec": self.spec(),
                "inputs": [stage.key for stage in self.inputs],
            }
        )

    @abstractmethod
    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        """Fill ``work`` and return the summary for the manifest."""


@dataclass(frozen=True)
class Samples(Stage):
    """Unlabeled images with a question each: ``samples.jsonl``, ``drops.jsonl``, ``images/``."""

    name: ClassVar[str] = "samples"
    version: ClassVar[int] = 1
    data: AnyData
    seed: int
    digests: FileDigests = field(compare=False)

    def spec(self) -> Json:
        seed = self.seed if self.data.seeded else None
        return {"data": self.data.identity(self.digests), "seed": seed}

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        made = self.data.build(self.seed, work, shop.digests)
        write_jsonl(work / "samples.jsonl", made.samples)
        write_jsonl(work / "drops.jsonl", made.drops)
        counts = tally(made.drops)
        not_drawn = counts.pop(NOT_DRAWN, 0)
        unusable = [drop for drop in made.drops if drop.reason != NOT_DRAWN]
        return {
            "samples": len(made.samples),
            "not_drawn": not_drawn,
            "unusable": counts,
            "left_out": [told(drop) for drop in unusable[:TOLD]],
        }


@dataclass(frozen=True)
class Answers(Stage):
    """One view's answer to every sample: ``answers.jsonl``; pictures of a negative view in
    ``previews/``. SeVa 1.1: y_c from the clean view, y_r from the augmented one."""

    name: ClassVar[str] = "answers"
    version: ClassVar[int] = 1
    samples: Samples
    model: AnyModel
    generation: AnyGeneration
    view: str
    augmentation: AnyAugmentation | None
    seed: int

    @property
    def label(self) -> str:
        return f"answers.{self.view}"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.samples,)

    def spec(self) -> Json:
        augmentation = self.augmentation
        return {
            "model": self.model.identity(self.samples.digests),
            "generation": self.generation.to_json(),
            "view": augmentation.identity() if augmentation else CLEAN,
            "seed": self.seed if augmentation or self.generation.seeded else None,
        }

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.generation.answers import answer_samples
        from seva_exp.views import Pictures, View

        samples = list(read_jsonl(paths[0] / "samples.jsonl", Sample))
        root = self.samples.data.image_root(paths[0])
        return answer_samples(
            lambda: shop.model(self.model),
            samples,
            Pictures(samples),
            root,
            View(self.view, self.augmentation, self.seed),
            self.generation,
            shop.placement(work),
            PREVIEWS,
        )


@dataclass(frozen=True)
class Pairs(Stage):
    """Preferences: ``pairs.jsonl`` and, for each sample left out, ``drops.jsonl``."""

    name: ClassVar[str] = "pairs"
    version: ClassVar[int] = 1
    samples: Samples
    clean: Answers
    negatives: tuple[Answers, ...]

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.samples, self.clean, *self.negatives)

    def spec(self) -> Json:
        # The views' names are in the pairs, so they are part of what is made.
        return {"drop": ["equal"], "views": [answers.view for answers in self.negatives]}

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.generation.pairs import make_pairs, summarize

        samples = read_jsonl(paths[0] / "samples.jsonl", Sample)
        clean, *negatives = ([*read_jsonl(p / "answers.jsonl", Answer)] for p in paths[1:])
        views = [stage.view for stage in self.negatives]
        named = dict(zip(views, negatives, strict=True))
        pairs, drops, removed = make_pairs(samples, clean, named, [EqualFilter()], seed=0)
        write_jsonl(work / "pairs.jsonl", pairs)
        write_jsonl(work / "drops.jsonl", drops)
        return summarize(pairs, drops, removed)


@dataclass(frozen=True)
class Align(Stage):
    """DPO on the pairs: ``adapter/`` (PEFT) and ``metrics.jsonl``."""

    name: ClassVar[str] = "align"
    version: ClassVar[int] = 1
    pairs: Pairs
    model: AnyModel
    dpo: DpoTraining
    seed: int

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.pairs, self.pairs.samples)

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.pairs.samples.digests),
            "dpo": self.dpo.to_json(),
            "seed": self.seed,
        }

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.training.align import align

        pairs = list(read_jsonl(paths[0] / "pairs.jsonl", Pair))
        root = self.pairs.samples.data.image_root(paths[1])
        vlm = shop.model(self.model)
        try:
            return align(
                vlm,
                pairs,
                root,
                self.dpo,
                shop.placement(work),
                self.seed,
                self.model.location(),
                lambda step, row: shop.log(self.label, step, row),
            )
        finally:
            shop.release()


@dataclass(frozen=True)
class Evaluate(Stage):
    """One model on one benchmark: ``predictions.jsonl`` and ``scores.jsonl``."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 1
    model: AnyModel
    benchmark_name: str
    benchmark: AnyBenchmark
    digests: FileDigests = field(compare=False)
    align: Align | None = None

    @property
    def which(self) -> str:
        """``base`` or ``aligned``."""
        return "aligned" if self.align else "base"

    @property
    def label(self) -> str:
        return f"evaluate.{self.which}.{self.benchmark_name}"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.align,) if self.align else ()

    def named(self, found: list[Score]) -> list[Score]:
        """Scores under this run's name of the benchmark (the artifact may be another run's)."""
        return [replace(score, benchmark=self.benchmark_name) for score in found]

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.digests),
            "benchmark": self.benchmark.to_json(),
            "protocol": self.benchmark.protocol,
        }

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.benchmarks.evaluate import evaluate
        from seva_exp.generation.engine import Engine

        adapter = paths[0] / "adapter" if paths else None
        placement = shop.placement(work)
        summary, found = evaluate(
            self.benchmark,
            lambda: Engine(shop.model(self.model, adapter)),
            placement,
            model=self.which,
            name=self.benchmark_name,
        )
        write_jsonl(work / "scores.jsonl", found)
        return summary


@dataclass(frozen=True)
class Compare(Stage):
    """aligned - base of every metric of one benchmark: ``deltas.jsonl``."""

    name: ClassVar[str] = "compare"
    version: ClassVar[int] = 1
    base: Evaluate
    aligned: Evaluate

    @property
    def label(self) -> str:
        return f"compare.{self.base.benchmark_name}"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.base, self.aligned)

    def named(self, found: list[Delta]) -> list[Delta]:
        """Deltas under this run's name of the benchmark."""
        return [replace(delta, benchmark=self.base.benchmark_name) for delta in found]

    def spec(self) -> Json:
        return {"protocol": self.base.benchmark.protocol}

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.benchmarks.statistics import deltas

        before, after = (list(read_jsonl(p / "predictions.jsonl", Prediction)) for p in paths)
        metrics = self.base.benchmark.metrics()
        found = deltas(metrics, before, after, benchmark=self.base.benchmark_name)
        write_jsonl(work / "deltas.jsonl", found)
        return {"metrics": len(found)}


def told(drop: Drop) -> str:
    """A drop for a person: what, why, and the numbers behind it."""
    return f"{drop.sample_id}: {drop.reason}" + (f" ({drop.detail})" if drop.detail else "")


def tally(drops: list[Drop]) -> dict[str, int]:
    """How many were left out for each reason, in the order of first occurrence."""
    counts: dict[str, int] = {}
    for drop in drops:
        counts[drop.reason] = counts.get(drop.reason, 0) + 1
    return counts


def read_scores(path: Path) -> list[Score]:
    """The scores of an evaluate artifact."""
    return list(read_jsonl(path / "scores.jsonl", Score))


def read_deltas(path: Path) -> list[Delta]:
    """The deltas of a compare artifact."""
    return list(read_jsonl(path / "deltas.jsonl", Delta))
