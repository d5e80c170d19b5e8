"""What the model says in place of a wrong sentence, behind the same context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from seva_exp.augment import AnotherCandidate
from seva_exp.core.interfaces import (
    AnswerEngine,
    ModelSource,
    Placement,
    Reply,
    Request,
    VisionLanguageModel,
)
from seva_exp.core.records import Answer, Continuations, Sample
from seva_exp.core.texts import Split
from seva_exp.decoding import HfGeneration
from seva_exp.decoding.engines import engine_of
from seva_exp.inputs.images import load_image
from seva_exp.inputs.views import View
from seva_exp.preferences.continuing import Begun, next_piece, pieces_of
from seva_exp.preferences.filters import Removal
from seva_exp.preferences.verdicts import SPLIT_TOKEN

Wrong = tuple[Sample, Answer, int | Removal]
"""A sample with its clean answer, and which sentence of it is the first wrong one, or why none."""


@dataclass(frozen=True)
class Continuing:
    """Goes on ``count`` times behind what stands before a wrong sentence, as ``generation``
    samples. Each draws from random numbers of its own: of the seed, the sample and its number."""

    source: ModelSource
    load_model: Callable[[], VisionLanguageModel]
    root: Path
    placement: Placement
    generation: HfGeneration
    seed: int
    count: int
    split: Split

    @cached_property
    def _vlm(self) -> VisionLanguageModel:
        return self.load_model()

    @cached_property
    def _engine(self) -> AnswerEngine:
        view = View("continued", AnotherCandidate(), self.seed)
        load = self.load_model
        return engine_of(self.generation, self.source, load, self.placement, view)

    def __call__(self, some: Sequence[Wrong]) -> list[Continuations]:
        begun = [self._begun(*one) for one in some]
        requests = [
            request
            for (sample, answer, _), one in zip(some, begun, strict=True)
            if not one.reason
            for request in self._requests(sample, answer, one)
        ]
        replies = (
            {r.id: r for found in self._engine.run(requests) for r in found} if requests else {}
        )
        return [one if one.reason else self._heard(one, replies) for one in begun]

    def _begun(self, sample: Sample, answer: Answer, wrong: int | Removal) -> Continuations:
        """The context and the wrong sentence; or why there are none."""
        if isinstance(wrong, Removal):
            return Continuations(sample.id, wrong.reason)
        parts = pieces_of(self._vlm, answer.tokens, self.split)
        if parts is None or "".join(part.text for part in parts) != answer.text:
            return Continuations(sample.id, SPLIT_TOKEN)
        before = parts[:wrong]
        return Continuations(
            sample.id,
            context="".join(part.text for part in before),
            context_tokens=tuple(id for part in before for id in part.tokens),
            rejected=parts[wrong].text,
            rejected_tokens=parts[wrong].tokens,
        )

    def _requests(self, sample: Sample, answer: Answer, one: Continuations) -> Iterator[Request]:
        load = partial(load_image, self.root, sample.image)
        most = self.generation.max_new_tokens
        for number in range(self.count):
            id, key = _id(sample.id, number), sample.image.sha256
            yield Request(id, key, load, answer.asked, most, one.context_tokens)

    def _heard(self, one: Continuations, replies: dict[str, Reply]) -> Continuations:
        """With the first sentence of each reply that is one."""
        begun = Begun(one.context, one.context_tokens)
        said = (replies[_id(one.sample_id, number)].tokens for number in range(self.count))
        found = [next_piece(self._vlm, begun, ids, self.split) for ids in said]
        kept = [piece for piece in found if piece]
        return replace(
            one,
            texts=tuple(piece.text for piece in kept),
            tokens=tuple(piece.tokens for piece in kept),
        )


def _id(sample: str, number: int) -> str:
    return f"{sample}#{number}"
