"""What changed between two models' answers to the same questions: fixed, broken, as good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappush, heappushpop

from seva_exp.core.randomness import seed_for
from seva_exp.core.records import Prediction

MOST = 50
"""Kept of each kind, a benchmark."""


@dataclass(frozen=True)
class AnswerChange:
    """One question and both answers."""

    before: Prediction
    after: Prediction


@dataclass(frozen=True)
class AnswerChanges:
    """The changes between two models' answers to the same questions. ``broken`` and ``fixed`` hold
    some of the ``broken_total`` and ``fixed_total`` that scored worse and better, in the questions'
    order; of the ``same_total`` whose score is the same, ``unchanged`` holds some where they were
    asked for, and ``reworded_total`` read otherwise. ``unjudged_total`` were scored of one model
    only, or of none."""

    broken: tuple[AnswerChange, ...]
    fixed: tuple[AnswerChange, ...]
    broken_total: int
    fixed_total: int
    same_total: int
    reworded_total: int
    unjudged_total: int
    unchanged: tuple[AnswerChange, ...] = ()


def quality(prediction: Prediction) -> float | None:
    """The number by which one answer is better than another: the score; of a description (CHAIR),
    how few mentions are made up, since its score only tells whether there is any. None: not
    judged."""
    if "wrong" in prediction.counts:
        return -prediction.counts["wrong"]
    return prediction.score


def changes(
    before: Iterable[Prediction],
    after: Iterable[Prediction],
    most: int = MOST,
    unchanged: int = 0,
) -> AnswerChanges:
    """Compares answers that come in the same order, one pair in memory at a time, and keeps at most
    ``most`` fixed and as many broken ones, and ``unchanged`` others: those whose ids come first in
    an order drawn by the id alone, so that any two models are shown by the same questions as far as
    they can be, from all over the file. Raises ValueError where the questions differ."""
    better, worse, others = _Few(most), _Few(most), _Few(unchanged)
    same = reworded = unjudged = 0
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if old.sample_id != new.sample_id:
            raise ValueError(f"the answers are of {old.sample_id!r} and {new.sample_id!r}")
        was, now = quality(old), quality(new)
        if was is None or now is None:
            unjudged += 1
        elif was == now:
            same += 1
            reworded += old.text != new.text
            others.add(number, AnswerChange(old, new))
        else:
            (better if now > was else worse).add(number, AnswerChange(old, new))
    kept = worse.kept(), better.kept()
    totals = worse.total, better.total, same, reworded, unjudged
    return AnswerChanges(*kept, *totals, others.kept())


class _Few:
    """Counts all, keeps few."""

    def __init__(self, most: int) -> None:
        self.total = 0
        self._most = most
        self._heap: list[tuple[int, int, AnswerChange]] = []

    def add(self, number: int, change: AnswerChange) -> None:
        self.total += 1
        entry = (-seed_for(0, "changed", change.before.sample_id), number, change)
        if len(self._heap) < self._most:
            heappush(self._heap, entry)
        elif self._heap:
            heappushpop(self._heap, entry)

    def kept(self) -> tuple[AnswerChange, ...]:
        return tuple(change for _, _, change in sorted(self._heap, key=lambda entry: entry[1]))
