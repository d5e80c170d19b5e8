"""From data to preferences: samples, answers, pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from seva_exp.augment import AnyAugmentation
from seva_exp.data import NOT_DRAWN, AnyData
from seva_exp.digests import FileDigests
from seva_exp.generation import AnyFilter, AnyGeneration, Newlines
from seva_exp.models import AnyModel
from seva_exp.records import CLEAN, Answer, Drop, Sample, read_jsonl, tally, write_jsonl
from seva_exp.spec import Json
from seva_exp.stages.base import Stage, Workshop
from seva_exp.views import Asking, Draw, Pictures, View

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

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        made = self.data.build(self.seed, work, shop.digests, self.where)
        samples, again = self._asked_plainly(made.samples) if self.plain else (made.samples, [])
        write_jsonl(work / "samples.jsonl", samples)
        write_jsonl(work / "drops.jsonl", [*made.drops, *again])
        counts = tally(made.drops)
        not_drawn = counts.pop(NOT_DRAWN, 0)
        unusable = [drop for drop in made.drops if drop.reason != NOT_DRAWN]
        return {
            "samples": len(samples),
            "not_drawn": not_drawn,
            **({"asked_already": len(again)} if again else {}),
            "unusable": counts,
            "left_out": [told(drop) for drop in unusable[:TOLD]],
        }

    def _asked_plainly(self, samples: Iterable[Sample]) -> tuple[list[Sample], list[Drop]]:
        """Every picture once, its question replaced."""
        assert self.plain
        kept: dict[str, Sample] = {}
        again: list[Drop] = []
        for sample in samples:
            if first := kept.get(sample.image.sha256):
                again.append(Drop(sample.id, ANOTHER_ON_IT, f"as {first.id}"))
            else:
                question = self.plain(self.seed, sample.id)
                kept[sample.image.sha256] = replace(sample, prompt=question)
        return list(kept.values()), again


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

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.generation.answers import answer_samples

        everyone = list(read_jsonl(paths[0] / "samples.jsonl", Sample))
        asked = everyone
        if self.draw:
            asked = [s for s in everyone if self.draw(self.seed, s.id) == self.view]
        adapter = paths[1] / "adapter" if self.adapter else None
        return answer_samples(
            lambda: shop.model(self.model, adapter),
            asked,
            Pictures(everyone),
            self.samples.data.image_root(paths[0]),
            View(self.view, self.augmentation, self.seed, self.asking),
            self.generation,
            shop.placement(work),
            PREVIEWS,
        )


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

    def run(self, work: Path, paths: list[Path], shop: Workshop) -> Json:
        from seva_exp.generation.pairs import make_pairs, summarize

        samples = list(read_jsonl(paths[0] / "samples.jsonl", Sample))
        clean, *negatives = ([*read_jsonl(p / "answers.jsonl", Answer)] for p in paths[1:])
        answers = {stage.view: a for stage, a in zip(self.negatives, negatives, strict=True)}
        pairs, drops, removed = make_pairs(
            samples, clean, answers, self.filters, self.seed, self.newlines
        )
        write_jsonl(work / "pairs.jsonl", pairs)
        write_jsonl(work / "drops.jsonl", drops)
        return summarize(pairs, drops, removed)


def told(drop: Drop) -> str:
    """A drop for a person: what, why, and the numbers behind it."""
    return f"{drop.sample_id}: {drop.reason}" + (f" ({drop.detail})" if drop.detail else "")
