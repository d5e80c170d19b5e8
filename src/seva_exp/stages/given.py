"""From a preference set's own answers to preferences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from seva_exp.core.records import CLEAN, Answer
from seva_exp.preferences.filters import Candidate
from seva_exp.preferences.pairs import Candidates
from seva_exp.stages.base import Inputs, Stage
from seva_exp.stages.pairs import Pairs

GIVEN = "given"
"""Where the rejected answers come from, in a pair's ``views``."""


@dataclass(frozen=True)
class GivenPairs(Pairs):
    """Preferences that the data brings: ``pairs.jsonl`` and, for each sample that a filter leaves
    out, ``drops.jsonl``. Nothing is asked: ``clean`` tells how the model would be, for an estimate
    of lengths."""

    name: ClassVar[str] = "given_pairs"
    version: ClassVar[int] = 1
    asked: ClassVar[bool] = False

    @property
    def sources(self) -> list[str]:
        return [GIVEN]

    @property
    def most_rejected(self) -> int:
        return 1

    @property
    def steps(self) -> Sequence[Stage]:
        return ()

    @property
    def inputs(self) -> Mapping[str, Stage]:
        return {"samples": self.samples}

    def groups(self, inputs: Inputs) -> Iterator[Candidates]:
        """Each sample with its candidates. Without tokens: training makes them of the texts."""
        for sample in self.samples.makes(inputs["samples"]).samples():
            said = partial(Answer, sample.id, asked=sample.prompt, tokens=(), stop="eos")
            chosen = said(view=CLEAN, text=sample.response)
            candidates = (
                Candidate(sample.id, GIVEN, chosen, said(view=GIVEN, text=text))
                for text in sample.rejected
            )
            yield Candidates(sample, tuple(candidates))
