"""From answers to preferences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seva_exp.augment import AnySource
from seva_exp.core.records import Drop, jsonl_writer
from seva_exp.core.spec import Json
from seva_exp.decoding.spec import Newlines
from seva_exp.preferences import AnyFilter
from seva_exp.preferences.pairs import Candidates, Tally, grouped, make_pairs
from seva_exp.stages.agreeing import agreeing
from seva_exp.stages.artifacts import (
    PairArtifact,
)
from seva_exp.stages.base import Inputs, Stage, StageContext
from seva_exp.stages.preferences import Answers, Rejected, Samples
from seva_exp.stages.shown import PairExample


@dataclass(frozen=True)
class Pairs(Stage):
    """Preferences: ``pairs.jsonl`` and, for each sample left out, ``drops.jsonl``."""

    name: ClassVar[str] = "pairs"
    version: ClassVar[int] = 2
    makes: ClassVar[type[PairArtifact]] = PairArtifact
    hardest: ClassVar[bool] = False
    """Whether of a sample's rejected answers the likeliest is kept alone."""
    by_scores: ClassVar[bool] = False
    """Whether it takes scores of all answers to tell which make a pair."""
    asked: ClassVar[bool] = True
    """Whether the model is asked for the chosen answers."""
    samples: Samples
    clean: Answers
    negatives: tuple[Answers | Rejected, ...]
    filters: tuple[AnyFilter, ...]
    newlines: Newlines
    seed: int
    suffix: str = ""
    agreement: Stage | None = None
    """The score of each sample's answers under weak views; none: they are not asked."""

    @property
    def label(self) -> str:
        return f"pairs{self.suffix}"

    @property
    def most_rejected(self) -> int:
        """Rejected answers of a pair, at most (a file's may be more)."""
        return 1 if any(one.draw for one in self.negatives) else len(self.negatives)

    @property
    def sources(self) -> list[str]:
        """By name, what the rejected answers are of."""
        return [stage.view for stage in self.negatives]

    @property
    def steps(self) -> Sequence[Stage]:
        """What lies between clean answers and pairs, in the order of work."""
        return [one for one in self.inputs.values() if one not in (self.samples, self.clean)]

    @property
    def shown(self) -> Mapping[str, AnySource]:
        """The views whose pictures a loss may look at, by name."""
        found = {stage.view: stage.augmentation for stage in self.negatives}
        return {view: source for view, source in found.items() if source}

    @property
    def every_view(self) -> bool:
        """Whether a loss looks at each view's picture for each pair, else at those whose answers
        the pair holds."""
        return False

    @property
    def inputs(self) -> Mapping[str, Stage]:
        negatives = {f"negative.{stage.view}": stage for stage in self.negatives}
        return {"samples": self.samples, "clean": self.clean, **negatives, **self._agreeing}

    @property
    def _agreeing(self) -> dict[str, Stage]:
        return {"agreement": self.agreement} if self.agreement else {}

    def spec(self) -> Json:
        # The views' names are in the pairs, so they are part of what is made.
        return {
            "filters": [one.identity(self.samples.digests) for one in self.filters],
            "newlines": self.newlines,
            "views": self.sources,
            "seed": self.seed if any(one.seeded for one in self.filters) else None,
        }

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        def groups() -> Iterator[Candidates]:
            return agreeing(self.groups(inputs), inputs.get("agreement"))

        tally = Tally(self.sources)
        with (
            jsonl_writer(self.makes(work).file) as pair,
            jsonl_writer(self.makes(work).drops_file) as drop,
        ):
            for made in make_pairs(groups, self.filters, self.seed, self.newlines, self.hardest):
                tally.add(made)
                (drop if isinstance(made.result, Drop) else pair)(made.result)
        return tally.summary()

    def groups(self, inputs: Inputs) -> Iterator[Candidates]:
        """Each sample with its candidates."""
        samples = self.clean.asked(self.samples.makes(inputs["samples"]))
        clean = self.clean.makes(inputs["clean"]).answers()
        negatives = {
            stage.view: stage.makes(inputs[f"negative.{stage.view}"]).answers()
            for stage in self.negatives
        }
        sparse = any(not stage.needs_model for stage in self.negatives)
        return grouped(samples, clean, negatives, sparse)

    def examples(self, path_of: Callable[[Stage], Path], most: int) -> list[PairExample]:
        """The first pairs of which every view's picture was kept; a source without a model has
        none to keep."""
        asking = [one for one in self.negatives if isinstance(one, Answers)]
        previews = {one.view: one.makes(path_of(one)).previews() for one in asking}
        root = self.samples.data.image_root(path_of(self.samples))
        found: list[PairExample] = []
        for pair in self.makes(path_of(self)).pairs():
            if len(found) == most:
                break
            views = [view for view in pair.views if view in previews]
            if all(pair.sample_id in previews[view] for view in views):
                shown = {view: previews[view][pair.sample_id] for view in views}
                found.append(PairExample(pair, root / pair.image.path, shown))
        return found
