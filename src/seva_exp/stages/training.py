"""From preferences and instructions to adapters: reference, align, infuse, fine-tune."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from seva_exp.augment import AnyAugmentation
from seva_exp.core.records import Answer, Pair, Sample, jsonl_writer, read_jsonl
from seva_exp.core.spec import Json
from seva_exp.inputs.prompts import infuse
from seva_exp.inputs.views import View
from seva_exp.methods import Against, SticMethod
from seva_exp.models import AnyModel
from seva_exp.stages.base import Stage, Workshop
from seva_exp.stages.preferences import Answers, Pairs, Samples
from seva_exp.stages.processes import Job, launch
from seva_exp.training import DpoTraining, SftTraining


class Trained(Stage):
    """Stages that make an adapter."""


@dataclass(frozen=True)
class Alignment(Stage):
    """What the stages have in common that look at the pairs with a model: ``dpo`` of them from
    ``start`` on (the adapter of the round before; none in round 1)."""

    pairs: Pairs
    model: AnyModel
    dpo: DpoTraining
    seed: int
    start: Align | None = None
    against: Against = "previous"
    suffix: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}{self.suffix}"

    @property
    def _augmentations(self) -> dict[str, AnyAugmentation]:
        """The negative views whose pictures the loss looks at."""
        found = {stage.view: stage.augmentation for stage in self.pairs.negatives}
        return {k: v for k, v in found.items() if v} if self.dpo.needs_images else {}

    @property
    def _views(self) -> dict[str, View]:
        return {n: View(n, a, self.seed) for n, a in self._augmentations.items()}

    def _pictures(self) -> Json:
        return {name: view.identity() for name, view in self._augmentations.items()}


@dataclass(frozen=True)
class Reference(Alignment):
    """log pi_ref of every answer of the pairs: ``reference.jsonl``. No number of ``dpo`` is in its
    key, so that a sweep over them computes it once; where the loss looks at the views' pictures,
    these are scored too."""

    name: ClassVar[str] = "reference"
    version: ClassVar[int] = 1

    @property
    def _from(self) -> Align | None:
        return self.start if self.against == "previous" else None

    @property
    def inputs(self) -> tuple[Stage, ...]:
        before = (self._from,) if self._from else ()
        return (self.pairs, self.pairs.samples, *before)

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.pairs.samples.digests),
            "pictures": self._pictures(),
            "seed": self.seed if self._augmentations else None,
        }

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.training.preferences import PairSet
        from seva_exp.training.reference import score_reference

        pair_set = PairSet(
            list(read_jsonl(paths[0] / "pairs.jsonl", Pair)),
            self.pairs.samples.data.image_root(paths[1]),
            self._views if self.dpo.needs_images else None,
            read_jsonl(paths[1] / "samples.jsonl", Sample),
        )
        start = paths[2] / "adapter" if self._from else None
        return score_reference(
            shop.model(self.model), pair_set, self.dpo.fast, shop.placement(work), start
        )


@dataclass(frozen=True)
class Align(Alignment, Trained):
    """DPO on the pairs: ``adapter/`` (PEFT) and ``metrics.jsonl``. From round 2 on it goes on with
    the adapter of ``start``."""

    name: ClassVar[str] = "align"
    version: ClassVar[int] = 5

    @property
    def reference(self) -> Reference:
        """What this one is held to."""
        return Reference(
            self.pairs, self.model, self.dpo, self.seed, self.start, self.against, self.suffix
        )

    @property
    def inputs(self) -> tuple[Stage, ...]:
        before = (self.start,) if self.start else ()
        return (self.pairs, self.pairs.samples, self.reference, *before)

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.pairs.samples.digests),
            "dpo": self.dpo.identity(),
            "reference": self.against if self.start else None,
            "pictures": self._pictures(),
            "seed": self.seed,
        }

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.training.align import align
        from seva_exp.training.driver import TrainingJob
        from seva_exp.training.preferences import PairSet
        from seva_exp.training.reference import read_reference

        if shop.machine.processes > 1:
            return launch(Job(self.run, self.label, work, paths), shop)[0]
        pairs = list(read_jsonl(paths[0] / "pairs.jsonl", Pair))
        pair_set = PairSet(
            pairs,
            self.pairs.samples.data.image_root(paths[1]),
            self._views if self.dpo.needs_images else None,
            read_jsonl(paths[1] / "samples.jsonl", Sample),
            read_reference(paths[2], pairs),
        )
        try:
            return align(
                TrainingJob(
                    shop.model(self.model),  # by no name: release() frees what nothing refers to
                    self.dpo,
                    shop.placement(work),
                    self.seed,
                    self.model.location(),
                    lambda step, row: shop.log(self.label, step, row),
                    start=paths[3] / "adapter" if self.start else None,
                    reference="start" if self.against == "previous" else "base",
                ),
                pair_set,
            )
        finally:
            shop.release()


@dataclass(frozen=True)
class Infuse(Stage):
    """STIC, algorithm 2: each instruction behind a description of its image:
    ``instructions.jsonl``."""

    name: ClassVar[str] = "infuse"
    version: ClassVar[int] = 1
    samples: Samples
    descriptions: Answers
    method: SticMethod

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.samples, self.descriptions)

    def spec(self) -> Json:
        return {"infusion": self.method.infusion}

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        template = self.method.infusion
        count = 0
        samples = read_jsonl(paths[0] / "samples.jsonl", Sample)
        answers = read_jsonl(paths[1] / "answers.jsonl", Answer)
        with jsonl_writer(work / "instructions.jsonl") as write:
            for sample, said in zip(samples, answers, strict=True):
                assert said.sample_id == sample.id, "answers stand in the samples' order"
                write(replace(sample, prompt=infuse(template, said.text, sample.prompt)))
                count += 1
        return {"instructions": count}


@dataclass(frozen=True)
class FineTune(Trained):
    """STIC's stage 2: supervised fine-tuning on the infused instructions, from the aligned model
    on: ``adapter/`` and ``metrics.jsonl``."""

    name: ClassVar[str] = "finetune"
    version: ClassVar[int] = 2
    infused: Infuse
    align: Align
    model: AnyModel
    sft: SftTraining
    seed: int

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.infused, self.infused.samples, self.align)

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.infused.samples.digests),
            "sft": self.sft.to_json(),
            "seed": self.seed,
        }

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.training.driver import TrainingJob
        from seva_exp.training.finetune import fine_tune

        if shop.machine.processes > 1:
            return launch(Job(self.run, self.label, work, paths), shop)[0]
        samples = list(read_jsonl(paths[0] / "instructions.jsonl", Sample))
        try:
            return fine_tune(
                TrainingJob(
                    shop.model(self.model),  # by no name: release() frees what nothing refers to
                    self.sft,
                    shop.placement(work),
                    self.seed,
                    self.model.location(),
                    lambda step, row: shop.log(self.label, step, row),
                    start=paths[2] / "adapter",
                ),
                samples,
                self.infused.samples.data.image_root(paths[1]),
            )
        finally:
            shop.release()
