"""From data to preferences: samples, answers, pairs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from seva_exp.augment import AnyAugmentation
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import CLEAN, Answer, Drop, Sample, jsonl_writer, read_jsonl
from seva_exp.core.spec import Json
from seva_exp.data import NOT_DRAWN, AnyData
from seva_exp.decoding import AnyGeneration
from seva_exp.inputs.views import Asking, Draw, View
from seva_exp.models import AnyModel
from seva_exp.preferences import AnyFilter, Newlines
from seva_exp.preferences.shards import Shard, Shards
from seva_exp.stages.base import Stage, StageContext
from seva_exp.stages.processes import Job, launch

if TYPE_CHECKING:
    from seva_exp.preferences.pairs import Group

TOLD = 20
"""Unusable samples that are named on the console; drops.jsonl names all."""
PREVIEWS = 48
"""Pictures of what a negative view showed that an answers stage keeps for the report."""
ANOTHER_ON_IT = "picture asked already"


@dataclass(frozen=True)
class Samples(Stage):
    """Images with a question each: ``samples.jsonl``, ``drops.jsonl``, ``images/``.

    ``plain`` (STIC) takes the place of the data's own questions: then a picture is asked once,
    however many questions the data has on it."""

    name: ClassVar[str] = "samples"
    version: ClassVar[int] = 2
    data: AnyData
    seed: int
    digests: FileDigests = field(compare=False)
    plain: Asking | None = None
    where: str = "data"

    @property
    def label(self) -> str:
        return self.name if self.where == "data" else self.where

    def spec(self) -> Json:
        return {
            "data": self.data.identity(self.digests, self.where, self.seed),
            "seed": self.seed if self.data.seeded or self.plain else None,
            "plain": self.plain.to_json() if self.plain else None,
        }

    def run(self, work: Path, paths: list[Path], context: StageContext) -> Json:
        made = self.data.read(self.seed, work, context.digests, self.where)
        samples, reasons = 0, Counter[str]()
        left_out: list[str] = []
        with (
            jsonl_writer(work / "samples.jsonl") as sample,
            jsonl_writer(work / "drops.jsonl") as drop,
        ):
            for one in self._asked_plainly(made) if self.plain else made:
                if isinstance(one, Sample):
                    samples += 1
                    sample(one)
                    continue
                drop(one)
                reasons[one.reason] += 1
                if one.reason not in (NOT_DRAWN, ANOTHER_ON_IT) and len(left_out) < TOLD:
                    left_out.append(told(one))
        not_drawn, again = reasons.pop(NOT_DRAWN, 0), reasons.pop(ANOTHER_ON_IT, 0)
        return {
            "samples": samples,
            "not_drawn": not_drawn,
            **({"asked_already": again} if again else {}),
            "unusable": dict(reasons),
            "left_out": left_out,
        }

    def _asked_plainly(self, made: Iterable[Sample | Drop]) -> Iterator[Sample | Drop]:
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
    ``previews/``. SeVa 1.1: y_c from the clean view, y_r from the augmented one.

    ``asking`` replaces the samples' questions; with ``draw`` only those samples are asked to which
    this view falls; ``adapter`` is what the model was aligned to before."""

    name: ClassVar[str] = "answers"
    version: ClassVar[int] = 2
    samples: Samples
    model: AnyModel
    generation: AnyGeneration
    view: str
    augmentation: AnyAugmentation | None
    seed: int
    asking: Asking | None = None
    draw: Draw | None = None
    adapter: Stage | None = None
    suffix: str = ""

    @property
    def label(self) -> str:
        asked = self.view if self.samples.where == "data" else self.samples.where
        return f"answers.{asked}{self.suffix}"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.samples, self.adapter) if self.adapter else (self.samples,)

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
            "view": augmentation.identity() if augmentation else CLEAN,
            "asking": self.asking.to_json() if self.asking else None,
            "drawn": {"as": self.view, "of": self.draw.to_json()} if self.draw else None,
            "seed": self.seed if self._random else None,
        }

    def run(self, work: Path, paths: list[Path], context: StageContext) -> Json:
        from seva_exp.preferences.answers import summarize

        shards = self._shards(work, paths)
        left, start = shards.begin(), time.monotonic()
        job = Job(partial(self.share, left), self.label, work, paths, together=False)
        if left and context.machine.processes > 1 and self.generation.in_process:
            done = launch(job, context, shards.told)
        else:
            done = [job.task(work, paths, context)]
        seconds = time.monotonic() - start
        shards.merge(work / "answers.jsonl")
        return summarize(work / "answers.jsonl", sum(one["tokens"] for one in done), seconds)

    def share(
        self, left: list[Shard], work: Path, paths: list[Path], context: StageContext
    ) -> Json:
        """What one process does: it answers shards of ``left`` while there are some."""
        from seva_exp.preferences.answers import Asker, answer_shards, write_previews

        shards = self._shards(work, paths)
        adapter = paths[1] / "adapter" if self.adapter else None
        asker = Asker(
            self.model,
            lambda: context.model(self.model, adapter),
            lambda: read_jsonl(paths[0] / "samples.jsonl", Sample),
            self.samples.data.image_root(paths[0]),
            View(self.view, self.augmentation, self.seed, self.asking),
            self.generation,
            context.placement(work),
        )
        total, todo = (sum(s.asked for s in of) for of in (shards.all, left))
        with context.progress(self.label, total, "answer") as meter:
            if context.rank == 0:
                meter.update(total - todo)
            tokens = answer_shards(shards, left, asker, meter, context.rank, context.ranks)
        if context.rank == 0:
            write_previews(asker, shards.samples(), PREVIEWS)
        return {"tokens": tokens}

    def _shards(self, work: Path, paths: list[Path]) -> Shards:
        return Shards(paths[0] / "samples.jsonl", self._asks, work)

    def _asks(self, sample: Sample) -> bool:
        return self.draw is None or self.draw(self.seed, sample.id) == self.view


@dataclass(frozen=True)
class Pairs(Stage):
    """Preferences: ``pairs.jsonl`` and, for each sample left out, ``drops.jsonl``."""

    name: ClassVar[str] = "pairs"
    version: ClassVar[int] = 2
    samples: Samples
    clean: Answers
    negatives: tuple[Answers, ...]
    filters: tuple[AnyFilter, ...]
    newlines: Newlines
    seed: int
    suffix: str = ""

    @property
    def label(self) -> str:
        return f"pairs{self.suffix}"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.samples, self.clean, *self.negatives)

    def spec(self) -> Json:
        # The views' names are in the pairs, so they are part of what is made.
        return {
            "filters": [one.to_json() for one in self.filters],
            "newlines": self.newlines,
            "views": [answers.view for answers in self.negatives],
            "seed": self.seed if any(one.seeded for one in self.filters) else None,
        }

    def run(self, work: Path, paths: list[Path], context: StageContext) -> Json:
        from seva_exp.preferences.pairs import Tally, grouped, make_pairs

        def groups() -> Iterator[Group]:
            samples = read_jsonl(paths[0] / "samples.jsonl", Sample)
            clean, *negatives = (read_jsonl(p / "answers.jsonl", Answer) for p in paths[1:])
            views = (stage.view for stage in self.negatives)
            return grouped(samples, clean, dict(zip(views, negatives, strict=True)))

        tally = Tally([stage.view for stage in self.negatives])
        with (
            jsonl_writer(work / "pairs.jsonl") as pair,
            jsonl_writer(work / "drops.jsonl") as drop,
        ):
            for made in make_pairs(groups, self.filters, self.seed, self.newlines):
                tally.add(made)
                (drop if isinstance(made.result, Drop) else pair)(made.result)
        return tally.summary()


def told(drop: Drop) -> str:
    """A drop for a person: what, why, and the numbers behind it."""
    return f"{drop.sample_id}: {drop.reason}" + (f" ({drop.detail})" if drop.detail else "")
