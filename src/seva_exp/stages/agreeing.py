"""The agreement of answers under weak views, beside what makes pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from seva_exp.preferences.pairs import Candidates
from seva_exp.stages.artifacts import CandidateScoreArtifact


def agreeing(groups: Iterable[Candidates], scores: Path | None) -> Iterator[Candidates]:
    """``groups``, whose candidates know the agreement of their sample's answers: the mean of the K
    answers' ``scores`` (an artifact), 0 where fewer than two are any. As they are without scores;
    both stand in the samples' order."""
    if scores is None:
        yield from groups
        return
    found = CandidateScoreArtifact(scores).scores()
    for group, of in zip(groups, found, strict=True):
        assert of.sample_id == group.sample.id, "scores stand in the samples' order"
        known = [score for score in of.scores if score is not None]
        mean = fmean(known) if known else 0.0
        yield replace(
            group, candidates=tuple(replace(one, agreement=mean) for one in group.candidates)
        )
