"""Self-consistency: how much the other candidates say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from pydantic import Field

from seva_exp.core.records import AnswerGroup
from seva_exp.core.texts import normalised
from seva_exp.scores.base import CandidateScore, Desk, Scorer, Values


class Agreement(CandidateScore):
    """(1/(n-1)) sum over the n-1 others of s(y, y'). Of short answers s is 1 where both are equal
    but for case, punctuation, blanks and articles: the share that votes alike (self-consistency,
    arXiv:2203.11171; MM-UPT, arXiv:2505.22453, rewards the majority). Of longer ones it is the F1
    of their words (SQuAD, arXiv:1606.05250): the answer nearest to all (minimum Bayes risk)."""

    kind: Literal["agreement"] = "agreement"
    measure: Literal["auto", "equal", "f1"] = "auto"
    """``auto``: ``equal`` where no candidate has more than ``short`` words, else ``f1``."""
    short: int = Field(5, ge=1, description="words of the longest short answer")

    @contextmanager
    def scorer(self, desk: Desk, groups: Sequence[AnswerGroup]) -> Iterator[Scorer]:
        def score(some: Sequence[AnswerGroup]) -> Values:
            return [self.values(group) for group in some]

        yield score

    def values(self, group: AnswerGroup) -> tuple[float | None, ...]:
        """One per different answer; None where there is no other candidate."""
        others = sum(group.counts) - 1
        if others < 1:
            return (None,) * len(group.texts)
        texts = [normalised(text) for text in group.texts]
        equal = self.measure == "equal" or (
            self.measure == "auto" and all(len(text.split()) <= self.short for text in texts)
        )
        alike = _equal if equal else word_f1
        return tuple(
            (sum(n * alike(own, text) for n, text in zip(group.counts, texts, strict=True)) - 1)
            / others
            for own in texts
        )


def _equal(one: str, other: str) -> float:
    return float(one == other)


def word_f1(one: str, other: str) -> float:
    """F1 of two bags of words; 1 for equal ones."""
    if one == other:
        return 1.0
    first, second = one.split(), other.split()
    common = (Counter(first) & Counter(second)).total()
    return 2 * common / (len(first) + len(second)) if common else 0.0
