"""From views' answers to preferences over the hardest one alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from seva_exp.preferences.pairs import Candidates
from seva_exp.stages.artifacts import CandidateScoreArtifact
from seva_exp.stages.base import Inputs, Stage
from seva_exp.stages.pairs import Pairs


@dataclass(frozen=True)
class HardestPairs(Pairs):
    """Preferences over the one of the negative views' answers that is likeliest with the clean
    picture, by ``likelihood``, a score of these answers in the views' order: ``pairs.jsonl`` and
    ``drops.jsonl``. Every view answers every sample."""

    name: ClassVar[str] = "hardest_pairs"
    version: ClassVar[int] = 1
    hardest: ClassVar[bool] = True
    by_scores: ClassVar[bool] = True
    likelihood: Stage | None = None

    @property
    def inputs(self) -> Mapping[str, Stage]:
        assert self.likelihood
        return {**super().inputs, "likelihood": self.likelihood}

    @property
    def most_rejected(self) -> int:
        return 1

    def groups(self, inputs: Inputs) -> Iterator[Candidates]:
        """Each sample with its candidates, which know how likely they are."""
        scores = CandidateScoreArtifact(inputs["likelihood"]).scores()
        for group, of in zip(super().groups(inputs), scores, strict=True):
            assert of.sample_id == group.sample.id, "scores stand in the samples' order"
            known = zip(group.candidates, of.scores, strict=True)
            found = tuple(replace(one, likelihood=score) for one, score in known)
            yield replace(group, candidates=found)
