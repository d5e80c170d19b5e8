"""From preferences and instructions to adapters: reference, align, infuse, fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from seva_exp.augment import AnySource
from seva_exp.core.records import Pair, jsonl_writer
from seva_exp.core.sharing import Sharing
from seva_exp.core.spec import Json
from seva_exp.inputs.prompts import infuse
from seva_exp.inputs.views import View
from seva_exp.methods import Against, SticMethod
from seva_exp.models import AnyModel
from seva_exp.stages.artifacts import InstructionArtifact, ReferenceArtifact, WeightArtifact
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.stages.pairs import Pairs
from seva_exp.stages.preferences import Answers, Samples
from seva_exp.stages.processes import ProcessTask, launch
from seva_exp.training import DpoTraining, SftTraining
from seva_exp.training.weight import TokenWeights


@dataclass(frozen=True)
class Alignment(Stage):
    """Base of the stages that score pairs with a model: ``dpo`` of them from
    ``start`` on (the adapter of the round before; none in round 1)."""

    pairs: Pairs
    model: AnyModel
    dpo: DpoTraining
    seed: int
    start: Align | None = None
    against: Against = "previous"
    suffix: str = ""
    needs_model: ClassVar[bool] = True
    scores_pairs: ClassVar[bool] = True
    batch_field: ClassVar[str] = "train_batch_size"

    @property
    def label(self) -> str:
        return f"{self.name}{self.suffix}"

    def nothing_to_do(self, summaries: Mapping[str, Json]) -> str:
        found = summaries["pairs"]
        if found["kept"]:
            return ""
        why = ", ".join(f"{n} {reason}" for reason, n in found["dropped"].items())
        return (
            f"no pair is left of {found['sampled']} (dropped: {why}); use a stronger "
            "augmentation (e.g. aug.diffusion_noise.step=800), milder filters or more samples"
        )

    @property
    def pictured(self) -> bool:
        """Whether the chosen answer is scored with the negative views' pictures too."""
        return self.dpo.pictured

    @property
    def crossed(self) -> bool:
        """Whether the rejected answers are scored with the pictures that they were given to."""
        return self.dpo.crossed

    @property
    def _augmentations(self) -> dict[str, AnySource]:
        """The negative views, where the loss looks at their pictures."""
        if not self.pictured:
            return {}
        return dict(self.pairs.shown)

    @property
    def _views(self) -> dict[str, View] | None:
        """The views whose pictures are looked at; None: no loss looks at any."""
        if not self.pictured:
            return None
        return {n: View(n, a, self.seed) for n, a in self._augmentations.items()}

    def _pictures(self) -> Json:
        return {name: view.keyed() for name, view in self._augmentations.items()}

    def _pair_set(self, pairs: Sequence[Pair], inputs: Inputs) -> Any:
        """A ``PairSet``: the pairs with what is looked at beside them."""
        from seva_exp.training.preferences import PairSet

        samples = self.pairs.samples.makes(inputs["samples"])
        return PairSet(
            pairs,
            self.pairs.samples.data.image_root(samples.path),
            self._views,
            samples.samples(),
            crossed=self.crossed,
            every_view=self.pairs.every_view,
        )


@dataclass(frozen=True)
class Reference(Alignment):
    """log pi_ref of every answer of the pairs: ``reference.jsonl``. No number of ``dpo`` is in its
    key, so that a sweep over them computes it once; where the loss looks at the views' pictures,
    these are scored too."""

    name: ClassVar[str] = "reference"
    version: ClassVar[int] = 1
    makes: ClassVar[type[ReferenceArtifact]] = ReferenceArtifact
    shared: ClassVar[bool] = True

    @property
    def _from(self) -> Align | None:
        return self.start if self.against == "previous" else None

    @property
    def inputs(self) -> Mapping[str, Stage]:
        before = {"start": self._from} if self._from else {}
        return {"pairs": self.pairs, "samples": self.pairs.samples, **before}

    def spec(self) -> Json:
        found = {
            "model": self.model.identity(self.pairs.samples.digests),
            "pictures": self._pictures(),
            "seed": self.seed if self._augmentations else None,
        }
        return found | {"crossed": True} if self.crossed else found

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        from seva_exp.training.reference import NOTHING, conclude

        Sharing(work).begin()
        job = ProcessTask(self.share, self.label, work, inputs, together=False)
        done = launch(job, context) if context.several() else [job.task(work, inputs, context)]
        pairs = self.pairs.makes(inputs["pairs"]).pairs()
        conclude(work, [pair.sample_id for pair in pairs], self.makes.main)
        return next((one for one in done if one["forward"] != NOTHING), done[0])

    def share(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        """One process's share of the pairs; it returns the counts of all."""
        pair_set = self._pair_set(list(self.pairs.makes(inputs["pairs"]).pairs()), inputs)
        model, placement = context.model(self.model), context.placement(work)
        start = self._from.makes(inputs["start"]).adapter if self._from else None
        sharing = Sharing(work, context.rank, context.ranks)
        return self._score(model, pair_set, self.dpo.fast, placement, start, sharing)

    @property
    def _score(self) -> Callable[..., Json]:
        """What scores a ``PairSet``."""
        from seva_exp.training.reference import score_reference

        return score_reference


@dataclass(frozen=True)
class AnswerTokenWeights(Reference):
    """A weight for each token of the pairs' answers, where the reference alone decides it, and
    log pi_ref summed with them: ``weights.jsonl``. Of ``dpo`` only ``weights`` is in its key."""

    name: ClassVar[str] = "weights"
    version: ClassVar[int] = 1
    makes: ClassVar[type[WeightArtifact]] = WeightArtifact  # type: ignore[assignment]

    @property
    def pictured(self) -> bool:
        return "images" in self.dpo.needs

    @property
    def crossed(self) -> bool:
        assert self.dpo.weights
        return self.dpo.weights.logits or self.dpo.crossed

    def spec(self) -> Json:
        assert self.dpo.weights
        return super().spec() | {"weights": self.dpo.weights.to_json()}

    @property
    def _score(self) -> Callable[..., Json]:
        from seva_exp.training.weighing import score_weights

        assert isinstance(self.dpo.weights, TokenWeights)
        return partial(score_weights, self.dpo.weights)


@dataclass(frozen=True)
class Align(Alignment, Trained):
    """DPO on the pairs: ``adapter/`` (PEFT) and ``metrics.jsonl``. From round 2 on it goes on with
    the adapter of ``start``."""

    name: ClassVar[str] = "align"
    version: ClassVar[int] = 5

    @property
    def lora(self) -> DpoTraining:
        return self.dpo

    @property
    def reference(self) -> Reference:
        """The reference stage of this alignment."""
        return Reference(
            self.pairs, self.model, self.dpo, self.seed, self.start, self.against, self.suffix
        )

    @property
    def weights(self) -> AnswerTokenWeights | None:
        """The stage of the weights that are kept; none where they are made in each step."""
        if self.dpo.weights is None or not self.dpo.weights.kept:
            return None
        return AnswerTokenWeights(
            self.pairs, self.model, self.dpo, self.seed, self.start, self.against, self.suffix
        )

    @property
    def inputs(self) -> Mapping[str, Stage]:
        weighed = {"weights": self.weights} if self.weights else {}
        before = {"start": self.start} if self.start else {}
        return {
            "pairs": self.pairs,
            "samples": self.pairs.samples,
            "reference": self.reference,
            **weighed,
            **before,
        }

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.pairs.samples.digests),
            "dpo": self.dpo.identity(),
            "reference": self.against if self.start else None,
            "pictures": self._pictures(),
            "seed": self.seed,
        }

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        from seva_exp.training.align import align
        from seva_exp.training.driver import TrainingJob
        from seva_exp.training.reference import read_reference
        from seva_exp.training.weighing import read_weights

        if context.several(together=True):
            return launch(ProcessTask(self.run, self.label, work, inputs), context)[0]
        references = read_reference(inputs["reference"])
        every = self.pairs.makes(inputs["pairs"]).pairs()
        weights = read_weights(inputs["weights"]) if self.weights else None
        known = references.keys() if weights is None else references.keys() & weights.keys()
        pairs = [pair for pair in every if pair.sample_id in known]
        found = [references[pair.sample_id] for pair in pairs]
        pair_set = replace(self._pair_set(pairs, inputs), references=found)
        if weights is not None:
            pair_set = replace(pair_set, weights=[weights[pair.sample_id] for pair in pairs])
        try:
            return align(
                TrainingJob(
                    context.model(self.model),  # by no name: release() frees what nothing refers to
                    self.dpo,
                    context.placement(work),
                    self.seed,
                    self.model.location(),
                    lambda step, row: context.log(self.label, step, row),
                    start=self.start.makes(inputs["start"]).adapter if self.start else None,
                    reference="start" if self.against == "previous" else "base",
                ),
                pair_set,
            )
        finally:
            context.release()


@dataclass(frozen=True)
class Infuse(Stage):
    """STIC, algorithm 2: each instruction behind a description of its image:
    ``instructions.jsonl``."""

    name: ClassVar[str] = "infuse"
    version: ClassVar[int] = 1
    makes: ClassVar[type[InstructionArtifact]] = InstructionArtifact
    samples: Samples
    descriptions: Answers
    method: SticMethod

    @property
    def inputs(self) -> Mapping[str, Stage]:
        return {"samples": self.samples, "descriptions": self.descriptions}

    def spec(self) -> Json:
        return {"infusion": self.method.infusion}

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        template = self.method.infusion
        count = 0
        samples = self.samples.makes(inputs["samples"]).samples()
        answers = self.descriptions.makes(inputs["descriptions"]).answers()
        with jsonl_writer(self.makes(work).file) as write:
            for sample, answer in zip(samples, answers, strict=True):
                assert answer.sample_id == sample.id, "answers stand in the samples' order"
                write(replace(sample, prompt=infuse(template, answer.text, sample.prompt)))
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
    def lora(self) -> DpoTraining:
        return self.align.dpo

    @property
    def inputs(self) -> Mapping[str, Stage]:
        return {"instructions": self.infused, "samples": self.infused.samples, "start": self.align}

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.infused.samples.digests),
            "sft": self.sft.to_json(),
            "seed": self.seed,
        }

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        from seva_exp.training.driver import TrainingJob
        from seva_exp.training.finetune import fine_tune

        if context.several(together=True):
            return launch(ProcessTask(self.run, self.label, work, inputs), context)[0]
        samples = list(self.infused.makes(inputs["instructions"]).samples())
        try:
            return fine_tune(
                TrainingJob(
                    context.model(self.model),  # by no name: release() frees what nothing refers to
                    self.sft,
                    context.placement(work),
                    self.seed,
                    self.model.location(),
                    lambda step, row: context.log(self.label, step, row),
                    start=self.align.makes(inputs["start"]).adapter,
                ),
                samples,
                self.infused.samples.data.image_root(inputs["samples"]),
            )
        finally:
            context.release()
