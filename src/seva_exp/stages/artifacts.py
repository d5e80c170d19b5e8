"""What stages leave in the store: an artifact is a folder, its class names the files in it and
reads them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seva_exp.core.records import Answer, Delta, Pair, Prediction, Sample, Score, read_jsonl
from seva_exp.core.spec import Json


@dataclass(frozen=True)
class Artifact:
    """Base of the kinds of artifact."""

    path: Path

    def training(self) -> Iterator[Json]:
        """The logged steps of a training, in order; none where nothing was trained."""
        yield from ()


class SampleArtifact(Artifact):
    """Of ``samples``: images with a question each."""

    @property
    def file(self) -> Path:
        """One sample a line."""
        return self.path / "samples.jsonl"

    def samples(self) -> Iterator[Sample]:
        """In the data's order."""
        return read_jsonl(self.file, Sample)


class AnswerArtifact(Artifact):
    """Of ``answers``: what one view's question was answered with."""

    @property
    def file(self) -> Path:
        """One answer a line."""
        return self.path / "answers.jsonl"

    def answers(self) -> Iterator[Answer]:
        """In the samples' order."""
        return read_jsonl(self.file, Answer)

    def previews(self) -> dict[str, Path]:
        """By sample: the picture that a negative view showed, of those that were kept."""
        folder = self.path / "previews"
        rows = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        return {row["sample_id"]: folder / row["file"] for row in rows}


class PairArtifact(Artifact):
    """Of ``pairs``: preferences."""

    @property
    def file(self) -> Path:
        """One pair a line."""
        return self.path / "pairs.jsonl"

    def pairs(self) -> Iterator[Pair]:
        """In the samples' order."""
        return read_jsonl(self.file, Pair)


class ReferenceArtifact(Artifact):
    """Of ``reference``: log pi_ref of the pairs' answers. ``training.reference`` reads all of
    it."""

    def margins(self) -> Iterator[float]:
        """Pair by pair: log pi_ref(chosen) - the mean of log pi_ref(rejected)."""
        with (self.path / "reference.jsonl").open(encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                yield row["chosen"] - statistics.fmean(row["rejected"])


class AdapterArtifact(Artifact):
    """Of ``align`` and ``finetune``: an adapter and how it was trained."""

    @property
    def adapter(self) -> Path:
        """The folder in PEFT's layout."""
        return self.path / "adapter"

    def training(self) -> Iterator[Json]:
        for line in (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


class InstructionArtifact(Artifact):
    """Of ``infuse``: instructions behind descriptions of their images."""

    @property
    def file(self) -> Path:
        """One sample a line, its prompt infused."""
        return self.path / "instructions.jsonl"

    def samples(self) -> Iterator[Sample]:
        """In the data's order."""
        return read_jsonl(self.file, Sample)


class ScoreArtifact(Artifact):
    """Of ``evaluate`` and ``judge``: what a model said to a benchmark, and its scores."""

    @property
    def file(self) -> Path:
        """One prediction a line."""
        return self.path / "predictions.jsonl"

    @property
    def scores_file(self) -> Path:
        """One score a line."""
        return self.path / "scores.jsonl"

    def predictions(self) -> Iterator[Prediction]:
        """In the questions' order."""
        return read_jsonl(self.file, Prediction)

    def scores(self) -> list[Score]:
        """Under the names that the run had for model and benchmark that made them."""
        return list(read_jsonl(self.scores_file, Score))


class DeltaArtifact(Artifact):
    """Of ``compare``: a trained model's metrics less the base's."""

    @property
    def file(self) -> Path:
        """One delta a line."""
        return self.path / "deltas.jsonl"

    def deltas(self) -> list[Delta]:
        """Under the names that the run had for model and benchmark that made them."""
        return list(read_jsonl(self.file, Delta))
