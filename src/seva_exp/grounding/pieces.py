"""Which answers are explained: some that became better, worse, or neither, and, for the metrics,
some drawn by their ids alone. No heavy import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from pathlib import Path

from seva_exp.benchmarks.base import Benchmark
from seva_exp.benchmarks.changes import changes
from seva_exp.benchmarks.question import Question
from seva_exp.core.randomness import seed_for
from seva_exp.core.records import BASE, Prediction
from seva_exp.core.texts import is_empty
from seva_exp.grounding.rows import By, Status
from seva_exp.grounding.spec import Explain


@dataclass(frozen=True)
class Said:
    """An answer as its model gave it, to the prompt that it got."""

    by: By
    prompt: str
    text: str
    score: float | None


@dataclass(frozen=True)
class Piece:
    """A question with both models' answers. ``shown``: with maps, on a page; ``measured``: the
    metrics rest on it."""

    question: Question
    base: Prediction
    aligned: Prediction
    status: Status = "unchanged"
    shown: bool = False
    measured: bool = False

    @property
    def id(self) -> str:
        """The question's."""
        return self.question.id

    @property
    def said(self) -> tuple[Said, ...]:
        """The base's and the aligned model's answer, one for both where they are equal; those of
        nothing are left out."""
        old, new = self.base, self.aligned
        if (old.prompt, old.text) == (new.prompt, new.text):
            both = [Said("both", new.prompt, new.text, new.score)]
        else:
            both = [
                Said("base", old.prompt, old.text, old.score),
                Said("aligned", new.prompt, new.text, new.score),
            ]
        return tuple(one for one in both if not is_empty(one.text))

    def own(self, which: str) -> Prediction:
        """What the model itself said."""
        return self.base if which == BASE else self.aligned


def pieces_of(
    benchmark: Benchmark,
    root: Path | None,
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    how: Explain,
) -> list[Piece]:
    """What is explained of answers to the same questions, in their order; of questions on a picture
    to which one of the models said something."""
    status = _chosen(before, after, how)
    by_id = {old.sample_id: (old, new) for old, new in zip(before, after, strict=True)}
    every = (Piece(q, *by_id[q.id]) for q in benchmark.chosen(root) if q.load)
    asked = [piece for piece in every if piece.said]
    order = {piece.id: seed_for(0, "explained", piece.id) for piece in asked}
    drawn = set(nsmallest(how.measured, order, key=order.__getitem__))
    return [
        replace(piece, status=status.get(piece.id, "unchanged"), shown=shown, measured=measured)
        for piece in asked
        if (shown := piece.id in status) | (measured := piece.id in drawn)
    ]


def _chosen(
    before: Sequence[Prediction], after: Sequence[Prediction], how: Explain
) -> dict[str, Status]:
    """What is shown, drawn as the page of changed answers draws (``benchmarks/changes.py``)."""
    wanted: tuple[tuple[Status, int], ...] = (("fixed", how.fixed), ("broken", how.broken))
    found: dict[str, Status] = {}
    for status, most in wanted:
        kept = getattr(changes(before, after, most), status)
        found |= {change.before.sample_id: status for change in kept}
    same = changes(before, after, 0, how.unchanged).unchanged
    return found | {change.before.sample_id: "unchanged" for change in same}


def baseline(questions: Iterable[Question], most: int) -> list[Question]:
    """A question on each of ``most`` different pictures of a benchmark, drawn by their names."""
    by_picture: dict[str, Question] = {}
    for question in questions:
        if question.load:
            by_picture.setdefault(question.picture, question)
    order = {name: seed_for(0, "mean picture", name) for name in by_picture}
    return [by_picture[name] for name in nsmallest(most, order, key=order.__getitem__)]
