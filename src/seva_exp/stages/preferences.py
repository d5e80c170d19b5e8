"""From data to answers: samples, answers, texts that are rejected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import ClassVar

from seva_exp.augment import AnySource, AnyText
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import StageError
from seva_exp.core.machine import Machine
from seva_exp.core.randomness import python_rng
from seva_exp.core.records import CLEAN, Answer, Drop, Sample, jsonl_writer
from seva_exp.core.spec import Json
from seva_exp.core.store import PARTS
from seva_exp.data import AnyData
from seva_exp.data.counts import ANOTHER_ON_IT, Counts
from seva_exp.data.kept import Kept
from seva_exp.decoding import AnyGeneration, VllmGeneration
from seva_exp.decoding.engines import check_engine
from seva_exp.inputs.views import PromptDraw, View, ViewDraw
from seva_exp.models import AnyModel
from seva_exp.preferences.answers import LOADING, Asker, answer_shards, summarize, write_previews
from seva_exp.preferences.shards import Shard, Shards
from seva_exp.stages.artifacts import (
    AnswerArtifact,
    SampleArtifact,
)
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.stages.contrast import against, contrasts, view_against
from seva_exp.stages.parts import Part, falling
from seva_exp.stages.processes import ProcessTask, launch

PREVIEWS = 48
"""Pictures of what a negative view showed that an answers stage keeps for the report."""
GOES_ON = "{}: goes on behind the {} pictures or rows that an interrupted run looked at"


@dataclass(frozen=True)
class Samples(Stage):
    """Images with a question each: ``samples.jsonl``, ``drops.jsonl``, ``images/``.

    ``plain`` (STIC) takes the place of the data's own questions: then a picture is asked once,
    however many questions the data has on it."""

    name: ClassVar[str] = "samples"
    version: ClassVar[int] = 2
    makes: ClassVar[type[SampleArtifact]] = SampleArtifact
    data: AnyData
    seed: int
    digests: FileDigests = field(compare=False)
    plain: PromptDraw | None = None
    where: str = "data"

    @property
    def label(self) -> str:
        return self.name if self.where == "data" else self.where

    @cached_property
    def _identity(self) -> Json:
        """It may take reading a million rows, or looking at as many files."""
        return self.data.identity(self.digests, self.where, self.seed)

    def sample_estimate(self) -> int | None:
        return None if self.data.lacking(self.where) else self.data.estimate(self.where)

    def spec(self) -> Json:
        return {
            "data": self._identity,
            "seed": self.seed if self.data.seeded or self.plain else None,
            "plain": self.plain.to_json() if self.plain else None,
        }

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        (work / PARTS).mkdir(exist_ok=True)
        kept = Kept(work / PARTS, lambda n: context.note(GOES_ON.format(self.label, n)))
        made = self.data.read(self.seed, work, context.digests, self.where, kept)
        counts = Counts(self.data, self.where)
        with (
            jsonl_writer(self.makes(work).file) as sample,
            jsonl_writer(self.makes(work).drops_file) as drop,
        ):
            for one in self._with_plain_prompts(made) if self.plain else made:
                (sample if isinstance(one, Sample) else drop)(one)
                counts.add(one)
            return counts.summary()

    def _with_plain_prompts(self, made: Iterable[Sample | Drop]) -> Iterator[Sample | Drop]:
        """Every picture once, its question replaced."""
        assert self.plain
        kept: dict[str, str] = {}
        for one in made:
            if isinstance(one, Drop):
                yield one
            elif first := kept.get(one.image.sha256):
                yield Drop(one.id, ANOTHER_ON_IT, f"as {first}")
            else:
                kept[one.image.sha256] = one.id
                yield replace(one, prompt=self.plain(self.seed, one.id))


@dataclass(frozen=True)
class Answers(Stage):
    """One view's answer to every sample: ``answers.jsonl``; pictures of a negative view in
    ``previews/``. SeVa 1.1: y_c from the clean view, y_r from the augmented one. Another candidate
    is a view that changes nothing.

    ``asking`` replaces the samples' questions; with ``draw`` only those samples are asked to which
    this view falls, with ``part`` only its own; ``adapter``: what the model was aligned to;
    ``against``: what the generation's contrast looks at."""

    name: ClassVar[str] = "answers"
    version: ClassVar[int] = 2
    makes: ClassVar[type[AnswerArtifact]] = AnswerArtifact
    needs_model: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    samples: Samples
    model: AnyModel
    generation: AnyGeneration
    view: str
    augmentation: AnySource | None
    seed: int
    asking: PromptDraw | None = None
    draw: ViewDraw | None = None
    adapter: Trained | None = None
    suffix: str = ""
    part: Part | None = None
    against: AnySource | None = None

    @property
    def label(self) -> str:
        named = self.view if self.samples.where == "data" else self.samples.where
        return f"answers.{named}{self.suffix}"

    @property
    def inputs(self) -> Mapping[str, Stage]:
        before = {"adapter": self.adapter} if self.adapter else {}
        return {"samples": self.samples, **before}

    @property
    def prepared_as(self) -> str:
        return self.name + ".contrast" * contrasts(self.generation)

    def prepare(self, machine: Machine) -> None:
        check_engine(self.generation, machine, self.model)

    @property
    def asks_vllm(self) -> bool:
        return isinstance(self.generation, VllmGeneration)

    @property
    def _random(self) -> bool:
        several = self.asking is not None and len(self.asking.texts) > 1
        drawn = self.augmentation is not None or self.draw is not None
        return drawn or several or self.generation.seeded

    def spec(self) -> Json:
        augmentation = self.augmentation
        return {
            "model": self.model.identity(self.samples.digests),
            "generation": self.generation.identity(),
            "view": augmentation.keyed() if augmentation else CLEAN,
            "asking": self.asking.to_json() if self.asking else None,
            "drawn": {"as": self.view, "of": self.draw.to_json()} if self.draw else None,
            "seed": self.seed if self._random else None,
            **({"part": self.part.to_json()} if self.part else {}),
            **against(self.generation, self.against),
        }

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        shards, answers = self._shards(work, inputs), self.makes(work).file
        left, start = shards.begin(), time.monotonic()
        job = ProcessTask(partial(self.share, left), self.label, work, inputs, together=False)
        if left and context.several() and self.generation.in_process:
            done = launch(job, context, shards.work_of)
        else:
            done = [job.task(work, inputs, context)]
        seconds = time.monotonic() - start
        write_previews(self._asker(work, inputs, context), shards.samples(), PREVIEWS)
        shards.merge(answers)
        loading = max(one["loading"] for one in done)
        summary = summarize(answers, sum(one["tokens"] for one in done), seconds - loading)
        return summary | context.engine | {LOADING: round(loading, 3)}

    def share(self, left: list[Shard], work: Path, inputs: Inputs, context: StageContext) -> Json:
        """One process's share: it answers shards of ``left`` while there are some. The first writes
        the previews, which its model may be wanted for."""
        shards = self._shards(work, inputs, context.rank, context.ranks)
        asker = self._asker(work, inputs, context)
        total, todo = (sum(s.questions for s in of) for of in (shards.all, left))
        with context.progress(self.label, total, "answer") as meter:
            if context.rank == 0:
                meter.update(total - todo)
            tokens = answer_shards(shards, left, asker, meter)
        if context.rank == 0:
            write_previews(asker, shards.samples(), PREVIEWS)
        return {"tokens": tokens, "loading": asker.loading}

    def _asker(self, work: Path, inputs: Inputs, context: StageContext) -> Asker:
        samples = self.samples.makes(inputs["samples"])
        adapter = self.adapter.makes(inputs["adapter"]).adapter if self.adapter else None
        return Asker(
            self.model,
            lambda: context.model(self.model, adapter),
            samples.samples,
            self.samples.data.image_root(samples.path),
            View(self.view, self.augmentation, self.seed, self.asking),
            self.generation,
            context.placement(work, self.model, adapter),
            view_against(self.generation, self.against),
        )

    def _shards(self, work: Path, inputs: Inputs, rank: int = 0, ranks: int = 1) -> Shards:
        samples = self.samples.makes(inputs["samples"])
        return Shards(samples.file, self.asks(samples), work, rank, ranks)

    def asks(self, every: SampleArtifact) -> Callable[[Sample], bool]:
        """Tells of a sample whether it falls to this view."""
        return falling(self.part, every, self.draw, self.seed, self.view)

    def asked(self, every: SampleArtifact) -> Iterator[Sample]:
        """The samples of its part, in their order."""
        return self.part.samples(every) if self.part else every.samples()


@dataclass(frozen=True)
class Rejected(Stage):
    """The answers of a source that asks no model: ``answers.jsonl``, none or several a sample. With
    ``draw`` only to those samples to which this source falls."""

    name: ClassVar[str] = "rejected"
    version: ClassVar[int] = 1
    makes: ClassVar[type[AnswerArtifact]] = AnswerArtifact
    clean: Answers
    view: str
    source: AnyText
    seed: int
    draw: ViewDraw | None = None
    suffix: str = ""

    @property
    def label(self) -> str:
        return f"answers.{self.view}{self.suffix}"

    @property
    def augmentation(self) -> AnySource | None:
        """The view whose picture the answer was given to; here no model is shown anything."""
        return None

    @property
    def inputs(self) -> Mapping[str, Stage]:
        edited = {"clean": self.clean} if self.source.edits else {}
        return {"samples": self.clean.samples, **edited}

    def spec(self) -> Json:
        digests = self.clean.samples.digests
        return {
            "source": self.source.keyed(),
            "files": {name: digests(file) for name, file in self.source.files().items()},
            "drawn": {"as": self.view, "of": self.draw.to_json()} if self.draw else None,
            "seed": self.seed if self.source.seeded or self.draw else None,
            **({"part": self.clean.part.to_json()} if self.clean.part else {}),
        }

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        count = samples = 0
        with jsonl_writer(self.makes(work).file) as write:
            for sample, chosen in self._samples(inputs):
                samples += 1
                for answer in self._answers(sample, chosen):
                    count += 1
                    write(answer)
        if samples and not count and self.draw is None:
            raise StageError(
                f"{self.label}: it has a text for none of {samples} samples; has the file "
                "their ids? (samples.jsonl of the run tells them)"
            )
        return {"answers": count, "samples": samples}

    def _samples(self, inputs: Inputs) -> Iterator[tuple[Sample, Answer | None]]:
        """Each sample that falls to this source, with its clean answer where that is looked at."""
        samples = self.clean.asked(self.clean.samples.makes(inputs["samples"]))
        answers: Iterator[Answer | None] = repeat(None)
        if self.source.edits:
            answers = self.clean.makes(inputs["clean"]).answers()
        for sample, answer in zip(samples, answers, strict=self.source.edits):
            if self.draw is None or self.draw(self.seed, sample.id) == self.view:
                yield sample, answer

    def _answers(self, sample: Sample, chosen: Answer | None) -> Iterator[Answer]:
        """Without tokens: training makes them of the text. An edited answer ends as the clean one
        did."""
        rng = python_rng(self.seed, f"rejected/{self.source.stream}", sample.id)
        clean = chosen or Answer(sample.id, CLEAN, "", "", (), "eos")
        assert clean.sample_id == sample.id, "answers stand in the samples' order"
        for text in self.source.texts(sample.id, clean.text, rng):
            yield Answer(sample.id, self.view, clean.asked, text, (), clean.stop)
