"""Data that comes in parts, one a round: which samples a part has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from seva_exp.core.records import Sample
from seva_exp.core.spec import Json
from seva_exp.inputs.views import ViewDraw
from seva_exp.stages.artifacts import SampleArtifact


@dataclass(frozen=True)
class Part:
    """Part ``number`` (from 1) of ``of`` consecutive ones of the samples, disjoint, of nearly one
    size: of n samples those from (number - 1) n / of to number n / of, rounded down."""

    number: int
    of: int

    def to_json(self) -> Json:
        return asdict(self)

    def samples(self, every: SampleArtifact) -> Iterator[Sample]:
        """The part's, in their order."""
        count = sum(1 for _ in every.samples())
        first, end = ((self.number - less) * count // self.of for less in (1, 0))
        for place, sample in enumerate(every.samples()):
            if first <= place < end:
                yield sample

    def has(self, every: SampleArtifact) -> Callable[[Sample], bool]:
        """Tells of a sample whether it is the part's."""
        ids = frozenset(sample.id for sample in self.samples(every))
        return lambda sample: sample.id in ids


def falling(
    part: Part | None, every: SampleArtifact, draw: ViewDraw | None, seed: int, view: str
) -> Callable[[Sample], bool]:
    """Tells of a sample whether it is in the part, if there is one, and is drawn to the view, if
    views are drawn."""
    has = part.has(every) if part else None

    def falls(sample: Sample) -> bool:
        drawn = draw is None or draw(seed, sample.id) == view
        return drawn and (has is None or has(sample))

    return falls
