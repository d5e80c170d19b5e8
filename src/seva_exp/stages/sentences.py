"""SENTINEL: from clean answers to pairs of sentences behind one context. Judges look at the clean
answer sentence by sentence; behind what is right the model goes on; judges look at that, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from seva_exp.core.records import (
    Answer,
    AnswerGroup,
    Continuations,
    Drop,
    Sample,
    from_json,
    write_jsonl,
)
from seva_exp.core.spec import Json
from seva_exp.core.texts import Split, bare, pieces
from seva_exp.decoding import HfGeneration
from seva_exp.models import AnyModel
from seva_exp.preferences.filters import Candidate, Removal
from seva_exp.preferences.pairs import Candidates
from seva_exp.preferences.verdicts import Values, best_right, first_wrong
from seva_exp.stages.artifacts import ContinuationArtifact
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.stages.candidates import ModelScores, Placed, ScoreCandidates, ScoredPairs
from seva_exp.stages.per_sample import PerSample, Work
from seva_exp.stages.preferences import Answers, Samples

SENTENCES = "sentences"
"""In a summary: how many sentences were sampled in place of wrong ones."""
SENTENCE = "sentence"
"""What pairs call the source of their rejected sentences."""


@dataclass(frozen=True)
class SentenceScores(ScoreCandidates):
    """One judge's verdict on every sentence of the clean answers, or of what the model says in
    place of a wrong one: ``scores.jsonl``, as many numbers as there are sentences."""

    name: ClassVar[str] = "sentence_scores"
    version: ClassVar[int] = 1
    of: Answers | Continued | None = None
    split: Split = "sentences"

    @property
    def label(self) -> str:
        which = ".continued" if isinstance(self.of, Continued) else ""
        return f"scores.{self.called}{which}{self.suffix}"

    @property
    def inputs(self) -> Mapping[str, Stage]:
        assert self.of
        before = {"adapter": self.adapter} if self.adapter and self.needs_model else {}
        return {"samples": self.samples, "sentences": self.of, **before}

    def spec(self) -> Json:
        return {**super().spec(), "split": self.split}

    def todo(self, inputs: Inputs) -> Iterator[tuple[str, Placed]]:
        """Each sample's sentences; the number of each is its place."""
        for sample, texts in self._sentences(inputs):
            group = AnswerGroup(sample, texts, ((),) * len(texts), (1,) * len(texts))
            yield sample.id, (group, [*range(len(texts))])

    def _sentences(self, inputs: Inputs) -> Iterator[tuple[Sample, tuple[str, ...]]]:
        samples, split = self.samples.makes(inputs["samples"]).samples(), self.split
        if isinstance(self.of, Continued):
            found = self.of.makes(inputs["sentences"]).continuations()
            for sample, one in zip(samples, found, strict=True):
                yield sample, tuple(bare(text, split) for text in one.texts)
            return
        assert self.of
        answers = self.of.makes(inputs["sentences"]).answers()
        for sample, answer in zip(samples, answers, strict=True):
            yield sample, tuple(bare(piece, split) for piece in pieces(answer.text, split))


@dataclass(frozen=True)
class ModelSentenceScores(SentenceScores, ModelScores):
    """As ``sentence_scores``, of a judge that is the run's own model."""

    name: ClassVar[str] = "model_sentence_scores"
    version: ClassVar[int] = 1


@dataclass(frozen=True)
class Continued(PerSample):
    """Each clean answer up to its first wrong sentence, and ``count`` sampled sentences of the
    model behind the same context: ``continuations.jsonl``."""

    name: ClassVar[str] = "continued"
    version: ClassVar[int] = 1
    makes: ClassVar[type[ContinuationArtifact]] = ContinuationArtifact
    clean: Answers
    verdicts: tuple[SentenceScores, ...]
    generation: HfGeneration
    count: int
    split: Split
    suffix: str = ""

    @property
    def label(self) -> str:
        return f"continued{self.suffix}"

    @property
    def samples(self) -> Samples:
        return self.clean.samples

    @property
    def model(self) -> AnyModel:
        return self.clean.model

    @property
    def adapter(self) -> Trained | None:
        return self.clean.adapter

    @property
    def inputs(self) -> Mapping[str, Stage]:
        before = {"adapter": self.adapter} if self.adapter else {}
        verdicts = {f"scores.{one.called}": one for one in self.verdicts}
        return {"samples": self.samples, "clean": self.clean, **verdicts, **before}

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.samples.digests),
            "generation": self.generation.identity(),
            "count": self.count,
            "split": self.split,
            "seed": self.clean.seed,
        }

    def todo(self, inputs: Inputs) -> Iterator[tuple[str, Any]]:
        samples = self.samples.makes(inputs["samples"]).samples()
        answers = self.clean.makes(inputs["clean"]).answers()
        values = verdicts_of(self.verdicts, inputs)
        for sample, answer, sentences in zip(samples, answers, values, strict=True):
            yield sample.id, (sample, answer, first_wrong(sentences))

    @contextmanager
    def working(
        self, work: Path, inputs: Inputs, context: StageContext, left: Sequence[Any]
    ) -> Iterator[Work]:
        from seva_exp.preferences.sentences import Continuing

        adapter = self.adapter.makes(inputs["adapter"]).adapter if self.adapter else None
        go_on = Continuing(
            self.model,
            lambda: context.model(self.model, adapter),
            self.samples.data.image_root(inputs["samples"]),
            context.placement(work),
            self.generation,
            self.clean.seed,
            self.count,
            self.split,
        )
        yield lambda some: [asdict(one) for one in go_on(some)]

    def gathered(
        self, work: Path, pieces: Sequence[Any], rows: Sequence[Mapping[str, Any]]
    ) -> Json:
        found = [from_json(Continuations, dict(row)) for row in rows]
        write_jsonl(self.makes(work).file, found)
        reasons = Counter(one.reason for one in found if one.reason)
        texts = sum(len(one.texts) for one in found)
        return {"samples": len(found), SENTENCES: texts, **reasons}


@dataclass(frozen=True)
class SentencePairs(ScoredPairs):
    """Preferences between sentences behind one context: ``pairs.jsonl`` and, for each sample left
    out, ``drops.jsonl``."""

    name: ClassVar[str] = "sentence_pairs"
    version: ClassVar[int] = 1
    continued: Continued | None = None
    verdicts: tuple[SentenceScores, ...] = ()

    @property
    def inputs(self) -> Mapping[str, Stage]:
        assert self.continued
        scores = {f"scores.{one.called}": one for one in self.verdicts}
        return {"samples": self.samples, "continued": self.continued, **scores}

    @property
    def steps(self) -> Sequence[Stage]:
        assert self.continued
        return [*self.continued.verdicts, self.continued, *self.verdicts]

    @property
    def sources(self) -> list[str]:
        return [SENTENCE]

    def groups(self, inputs: Inputs) -> Iterator[Candidates]:
        """The two sentences of each sample, as one candidate pair."""
        assert self.continued
        samples = self.samples.makes(inputs["samples"]).samples()
        found = self.continued.makes(inputs["continued"]).continuations()
        values = verdicts_of(self.verdicts, inputs)
        for sample, one, verdicts in zip(samples, found, values, strict=True):
            assert one.sample_id == sample.id, "the samples' order"
            best: int | Removal = Removal(one.reason, "")
            if not one.reason:
                best = best_right(one.texts, verdicts, one.rejected)
            if isinstance(best, Removal):
                yield Candidates(sample, (), Drop(sample.id, best.reason, best.detail))
                continue
            said = partial(Answer, sample.id, SENTENCE, sample.prompt, stop="eos")
            chosen = said(text=one.texts[best], tokens=one.tokens[best])
            rejected = said(text=one.rejected, tokens=one.rejected_tokens)
            pair = Candidate(sample.id, SENTENCE, chosen, rejected, one.context, one.context_tokens)
            yield Candidates(sample, (pair,))


def verdicts_of(stages: Sequence[SentenceScores], inputs: Inputs) -> Iterator[list[Values]]:
    """For each sample what all judges say of each sentence, in the samples' order."""
    scored = [one.makes(inputs[f"scores.{one.called}"]).scores() for one in stages]
    for of_sample in zip(*scored, strict=True):
        assert len({one.sample_id for one in of_sample}) == 1, "the samples' order"
        yield [*zip(*(one.scores for one in of_sample), strict=True)]
