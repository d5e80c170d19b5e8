"""From candidate answers to preferences: a score for each, two of them chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from PIL.Image import Image
from PIL.Image import new as new_image

from seva_exp.augment import AnySource
from seva_exp.benchmarks.judging import Judge, Shown
from seva_exp.core.machine import Machine
from seva_exp.core.plugin_source import code_of
from seva_exp.core.records import (
    AnswerGroup,
    CandidateScores,
    Choice,
    Drop,
    jsonl_writer,
    write_jsonl,
)
from seva_exp.core.spec import Json
from seva_exp.inputs.views import View
from seva_exp.models import AnyModel
from seva_exp.preferences.filters import Candidate
from seva_exp.preferences.pairs import Candidates, answered
from seva_exp.preferences.selection import Chosen, Selection, group_of, places_in
from seva_exp.scores import AnyScore
from seva_exp.scores.base import Desk
from seva_exp.stages.artifacts import CandidateScoreArtifact, ChosenPairArtifact
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.stages.pairs import Pairs
from seva_exp.stages.per_sample import PerSample, Work
from seva_exp.stages.preferences import Answers, Samples
from seva_exp.training.spec import Fast

VERDICTS = "verdicts"
"""Of a summary: how many answers a score asked for (from different answers of the samples)."""


Placed = tuple[AnswerGroup, list[int | None]]
"""A sample's different answers, and which of them each candidate gave (None: none)."""


@dataclass(frozen=True)
class ScoreCandidates(PerSample):
    """One score of every candidate: ``scores.jsonl``. ``called`` is the score's name in this run;
    ``view`` the negative view that it looks at, if any. How several scores are mixed is no part of
    it."""

    name: ClassVar[str] = "scores"
    version: ClassVar[int] = 1
    makes: ClassVar[type[CandidateScoreArtifact]] = CandidateScoreArtifact
    needs_model: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    batch_field: ClassVar[str] = "train_batch_size"
    unit: ClassVar[str] = "sample"
    samples: Samples
    candidates: tuple[Answers, ...]
    score: AnyScore
    called: str
    model: AnyModel
    seed: int
    fast: Fast = "auto"
    view: AnySource | None = None
    judge: Judge | None = None
    adapter: Trained | None = None
    suffix: str = ""

    @property
    def label(self) -> str:
        return f"scores.{self.called}{self.suffix}"

    @property
    def inputs(self) -> Mapping[str, Stage]:
        candidates = {f"candidate.{number}": one for number, one in enumerate(self.candidates)}
        return {"samples": self.samples, **candidates}

    @property
    def prepared_as(self) -> str:
        return f"{self.name}.{self.called}"

    def prepare(self, machine: Machine) -> None:
        if self.judge and (judging := self.score.judging):
            self.judge.prepare(machine.judge, judging, Shown("", _grey))

    def spec(self) -> Json:
        return {
            "score": self.score.identity(self.samples.digests) | code_of(type(self.score)),
            "judge": self.judge.identity(self.score.judging) if self.judge else None,
            **self._asked(),
        }

    def _asked(self) -> Json:
        """The part of the run's own model in the result."""
        return {}

    def todo(self, inputs: Inputs) -> Iterator[tuple[str, Placed]]:
        samples = self.candidates[0].asked(self.samples.makes(inputs["samples"]))
        answers = [
            stage.makes(inputs[f"candidate.{number}"]).answers()
            for number, stage in enumerate(self.candidates)
        ]
        for sample, found in answered(samples, answers):
            group = group_of(sample, found)
            yield sample.id, (group, places_in(group, found))

    @contextmanager
    def working(
        self, work: Path, inputs: Inputs, context: StageContext, left: Sequence[Any]
    ) -> Iterator[Work]:
        desk = self._desk(work, inputs, context)
        with self.score.scorer(desk, [group for group, _ in left]) as score:

            def make(some: Sequence[Placed]) -> list[Json]:
                values = score([group for group, _ in some])
                return [
                    {"sample_id": group.sample.id, "scores": placed(of, places)}
                    for (group, places), of in zip(some, values, strict=True)
                ]

            yield make

    def gathered(
        self, work: Path, pieces: Sequence[Placed], rows: Sequence[Mapping[str, Any]]
    ) -> Json:
        found = [CandidateScores(row["sample_id"], tuple(row["scores"])) for row in rows]
        write_jsonl(self.makes(work).file, found)
        values = [value for one in found for value in one.scores if value is not None]
        candidates = sum(len(one.scores) for one in found)
        summary = {"candidates": candidates, "unscored": candidates - len(values)}
        if verdicts := sum(self.score.verdicts(group) for group, _ in pieces):
            summary[VERDICTS] = verdicts
        return summary | ({"mean": round(fmean(values), 6)} if values else {})

    def _desk(self, work: Path, inputs: Inputs, context: StageContext) -> Desk:
        samples = self.samples.makes(inputs["samples"])
        before = self.adapter if "adapter" in inputs else None
        adapter = before.makes(inputs["adapter"]).adapter if before else None
        seed = self.samples.seed
        name = self.score.looks_at
        return Desk(
            source=self.model,
            load_base=lambda: context.model(self.model),
            load_policy=lambda: context.model(self.model, adapter),
            root=self.samples.data.image_root(samples.path),
            everyone=samples.samples,
            placement=context.placement(work),
            label=self.label,
            seed=self.seed,
            fast=self.fast,
            start=adapter,
            view=View(name, self.view, self.seed) if name else None,
            truth=lambda id: self.samples.data.truth(seed, id),
            judge=self.judge,
            judge_server=context.machine.judge,
            store=context.machine.store_root(),
        )


@dataclass(frozen=True)
class ModelScores(ScoreCandidates):
    """One score of every candidate that the run's own model gives, as the round begins (with the
    adapter of the round before): ``scores.jsonl``."""

    name: ClassVar[str] = "model_scores"
    version: ClassVar[int] = 1
    needs_model: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    @property
    def inputs(self) -> Mapping[str, Stage]:
        before = {"adapter": self.adapter} if self.adapter else {}
        return {**super().inputs, **before}

    def _asked(self) -> Json:
        return {
            "model": self.model.identity(self.samples.digests),
            "view": self.view.keyed() if self.view else None,
            "seed": self.seed if self.view else None,
        }


def _grey() -> Image:
    return new_image("RGB", (336, 336), "grey")


def placed(values: Sequence[float | None], places: Sequence[int | None]) -> list[float | None]:
    """A value per candidate, of those of the different answers."""
    return [None if place is None else values[place] for place in places]


@dataclass(frozen=True)
class ScoredPairs(Pairs):
    """Base of the preferences between two answers that scores have told apart. ``views`` are those
    whose pictures a loss may look at: no answer was given to them."""

    by_scores: ClassVar[bool] = True
    views: tuple[tuple[str, AnySource], ...] = ()

    @property
    def most_rejected(self) -> int:
        return 1

    @property
    def shown(self) -> Mapping[str, AnySource]:
        return dict(self.views)

    @property
    def every_view(self) -> bool:
        return True


@dataclass(frozen=True)
class ChosenPairs(ScoredPairs):
    """Preferences between candidates, by their scores: ``pairs.jsonl``, ``choices.jsonl`` and, for
    each sample left out, ``drops.jsonl``. ``negatives`` are the candidates."""

    name: ClassVar[str] = "chosen_pairs"
    version: ClassVar[int] = 1
    makes: ClassVar[type[ChosenPairArtifact]] = ChosenPairArtifact
    scores_of: tuple[ScoreCandidates, ...] = ()
    selection: Selection = field(default_factory=Selection)

    @property
    def inputs(self) -> Mapping[str, Stage]:
        candidates = {f"candidate.{stage.view}": stage for stage in self.negatives}
        scores = {f"scores.{score.called}": score for score in self.scores_of}
        return {"samples": self.samples, **candidates, **scores, **self._agreeing}

    def spec(self) -> Json:
        return {**super().spec(), "selection": self.selection.to_json()}

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        summary = super().run(work, inputs, context)
        with jsonl_writer(self.makes(work).choices_file) as write:
            for _, found in self._choices(inputs):
                if found:
                    write(found)
        return summary

    def groups(self, inputs: Inputs) -> Iterator[Candidates]:
        """The two chosen candidates of each sample, as one candidate pair."""
        for group, _ in self._choices(inputs):
            yield group

    def _choices(self, inputs: Inputs) -> Iterator[tuple[Candidates, Choice | None]]:
        views = [stage.view for stage in self.negatives]
        samples = self.clean.asked(self.samples.makes(inputs["samples"]))
        answers = [
            stage.makes(inputs[f"candidate.{stage.view}"]).answers() for stage in self.negatives
        ]
        scored = [
            score.makes(inputs[f"scores.{score.called}"]).scores() for score in self.scores_of
        ]
        names = [score.called for score in self.scores_of]
        for (sample, found), *values in zip(answered(samples, answers), *scored, strict=True):
            by_name = {name: of.scores for name, of in zip(names, values, strict=True)}
            chosen = self.selection(found, by_name)
            if not isinstance(chosen, Chosen):
                drop = Drop(sample.id, chosen.reason, chosen.detail)
                yield Candidates(sample, (), drop), None
                continue
            best, worst = chosen.best, chosen.worst
            pair = Candidate(sample.id, views[worst], found[best], found[worst])
            totals = dict(zip(views, chosen.scores, strict=True))
            yield Candidates(sample, (pair,)), Choice(sample.id, views[best], views[worst], totals)
