"""What stages leave in the store: an artifact is a folder, its class names the files in it and
reads them. Raises FileNotFoundError where it is gone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from seva_exp.core.records import (
    Answer,
    CandidateScores,
    Choice,
    Continuations,
    Delta,
    Pair,
    Prediction,
    Record,
    Sample,
    Score,
    from_json,
)
from seva_exp.core.spec import Json
from seva_exp.grounding.rows import ExplainedSample, ShownPictures


@dataclass(frozen=True)
class Artifact:
    """Base of the kinds of artifact."""

    path: Path
    main: ClassVar[str] = ""
    """Its first file, of JSON lines."""

    @property
    def file(self) -> Path:
        """Where ``main`` lies."""
        return self.path / self.main

    def training(self) -> Iterator[Json]:
        """The logged steps of a training, in order; none where nothing was trained."""
        yield from ()


class Sifted(Artifact):
    """Base of those that leave samples out."""

    @property
    def drops_file(self) -> Path:
        """A line for each one that was left out: why."""
        return self.path / "drops.jsonl"


class SampleArtifact(Sifted):
    """Of ``samples``: images with a question each."""

    main: ClassVar[str] = "samples.jsonl"

    def samples(self, wanted: Collection[str] | None = None) -> Iterator[Sample]:
        """In the data's order: all, or those of these ids."""
        return records(self.file, Sample, "id", wanted)


class AnswerArtifact(Artifact):
    """Of ``answers``: what one view's question was answered with."""

    main: ClassVar[str] = "answers.jsonl"
    index: ClassVar[str] = "previews/index.json"
    """Which picture is which sample's."""

    def answers(self, wanted: Collection[str] | None = None) -> Iterator[Answer]:
        """In the samples' order: all, or those to the samples of these ids."""
        return records(self.file, Answer, "sample_id", wanted)

    def previews(self) -> dict[str, Path]:
        """By sample: the picture that a negative view showed, of those that were kept."""
        index = self.path / self.index
        found = json.loads(index.read_text(encoding="utf-8")) if index.exists() else []
        return {row["sample_id"]: index.parent / row["file"] for row in found}


class PairArtifact(Sifted):
    """Of ``pairs``: preferences."""

    main: ClassVar[str] = "pairs.jsonl"

    def pairs(self) -> Iterator[Pair]:
        """In the samples' order."""
        return records(self.file, Pair)


class ChosenPairArtifact(PairArtifact):
    """Of ``chosen_pairs``: preferences between a sample's candidates."""

    @property
    def choices_file(self) -> Path:
        """A line for each sample of which two candidates were chosen, before any filter."""
        return self.path / "choices.jsonl"

    def choices(self) -> Iterator[Choice]:
        """In the samples' order."""
        return records(self.choices_file, Choice)


class CandidateScoreArtifact(Artifact):
    """Of ``scores`` and ``model_scores``: a number for every candidate."""

    main: ClassVar[str] = "scores.jsonl"

    def scores(self) -> Iterator[CandidateScores]:
        """In the samples' order."""
        return records(self.file, CandidateScores)


class ContinuationArtifact(Artifact):
    """Of ``continued``: each clean answer up to its first wrong sentence, and what else the model
    says there."""

    main: ClassVar[str] = "continuations.jsonl"

    def continuations(self) -> Iterator[Continuations]:
        """In the samples' order."""
        return records(self.file, Continuations)


class ReferenceArtifact(Artifact):
    """Of ``reference``: log pi_ref of the pairs' answers. ``training.reference`` reads all of
    it."""

    main: ClassVar[str] = "reference.jsonl"

    def margins(self) -> Iterator[float]:
        """Pair by pair: log pi_ref(chosen) - the mean of log pi_ref(rejected)."""
        for row in rows(self.file):
            yield row["chosen"] - statistics.fmean(row["rejected"])


class WeightArtifact(Artifact):
    """Of ``weights``: a weight for each token of the pairs' answers, and log pi_ref summed with
    them. ``training.weighing`` reads all of it."""

    main: ClassVar[str] = "weights.jsonl"


class AdapterArtifact(Artifact):
    """Of ``align`` and ``finetune``: an adapter and how it was trained."""

    main: ClassVar[str] = "metrics.jsonl"

    @property
    def adapter(self) -> Path:
        """The folder in PEFT's layout."""
        return self.path / "adapter"

    def training(self) -> Iterator[Json]:
        return rows(self.file)


class InstructionArtifact(SampleArtifact):
    """Of ``infuse``: instructions behind descriptions of their images, as samples whose prompt is
    infused."""

    main: ClassVar[str] = "instructions.jsonl"


class ScoreArtifact(Artifact):
    """Of ``evaluate``: what a model said to a benchmark, and its scores."""

    main: ClassVar[str] = "predictions.jsonl"

    @property
    def scores_file(self) -> Path:
        """One score a line."""
        return self.path / "scores.jsonl"

    def predictions(self) -> Iterator[Prediction]:
        """In the questions' order."""
        return records(self.file, Prediction)

    def scores(self) -> list[Score]:
        """Under the names that the run had for model and benchmark that made them."""
        return list(records(self.scores_file, Score))


class JudgedArtifact(ScoreArtifact):
    """Of ``judge``: an evaluation's, as a judge has settled it."""

    @property
    def judgements_file(self) -> Path:
        """What the judge said, a judgement a line."""
        return self.path / "judgements.jsonl"


class DeltaArtifact(Artifact):
    """Of ``compare``: a trained model's metrics less the base's."""

    main: ClassVar[str] = "deltas.jsonl"

    def deltas(self) -> list[Delta]:
        """Under the names that the run had for model and benchmark that made them."""
        return list(records(self.file, Delta))


class ExplainArtifact(Artifact):
    """Of ``explain``: what the words of base's and final model's answers rest on."""

    main: ClassVar[str] = "words.jsonl"
    index: ClassVar[str] = "pictures/pictures.json"
    """Which pictures are whose."""

    @property
    def measured_file(self) -> Path:
        """The samples that the metrics rest on, without maps."""
        return self.path / "measured.jsonl"

    @property
    def scores_file(self) -> Path:
        """One score a line."""
        return self.path / "scores.jsonl"

    @property
    def deltas_file(self) -> Path:
        """One change a line."""
        return self.path / "deltas.jsonl"

    def samples(self) -> Iterator[ExplainedSample]:
        """Those that are shown, in the questions' order."""
        return _explained(self.file)

    def measured(self) -> Iterator[ExplainedSample]:
        """Those that the metrics rest on, in the questions' order."""
        return _explained(self.measured_file)

    def pictures(self) -> dict[str, tuple[Path, Path | None]]:
        """By sample what the models saw of its picture, and what the run's negative view shows them
        (None: there is no such view)."""
        index = self.path / self.index
        if not index.exists():
            return {}
        rows = json.loads(index.read_text(encoding="utf-8"))
        found = (ShownPictures.model_validate(row) for row in rows)
        folder = index.parent
        return {
            one.id: (folder / one.clean, folder / one.worse if one.worse else None) for one in found
        }

    def scores(self) -> list[Score]:
        """The metrics of both models, under the name that the run had for the benchmark."""
        return list(records(self.scores_file, Score))

    def deltas(self) -> list[Delta]:
        """Their changes."""
        return list(records(self.deltas_file, Delta))


def _explained(file: Path) -> Iterator[ExplainedSample]:
    with file.open(encoding="utf-8") as lines:
        yield from map(ExplainedSample.model_validate_json, lines)


def records(
    file: Path, kind: type[Record], name: str = "", wanted: Collection[str] | None = None
) -> Iterator[Record]:
    """A file's records: all, or those whose field ``name`` is one of ``wanted``, read as far as the
    last of these, so that first ones of a long file cost little."""
    left = None if wanted is None else set(wanted)
    for row in rows(file) if left is None or left else ():
        if left is None:
            yield from_json(kind, row)
        elif row[name] in left:
            left.discard(row[name])
            yield from_json(kind, row)
            if not left:
                return


def rows(file: Path) -> Iterator[Any]:
    """A file's lines of JSON, in order."""
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
