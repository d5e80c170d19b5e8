"""``changed.html``: answers that a model fixed and broke, beside those of the model before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING

from seva_exp.core.errors import StageError
from seva_exp.core.randomness import seed_for
from seva_exp.core.records import Prediction, read_jsonl
from seva_exp.core.spec import Json
from seva_exp.report.gallery import inlined, marked
from seva_exp.report.pages import template
from seva_exp.runs.events import Answered, Outcome

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 50
"""Shown of each kind, a benchmark."""
SIDE = 160
"""Largest side of an inlined picture, in pixels."""
LONG = 400
"""Characters of a question beyond which it is folded."""


@dataclass(frozen=True)
class AnswerChange:
    """One question and both answers."""

    before: Prediction
    after: Prediction


@dataclass(frozen=True)
class AnswerChanges:
    """The changes between two models' answers to the same questions. ``broken`` and ``fixed`` hold
    some of the ``broken_total`` and ``fixed_total`` that scored worse and better, in the questions'
    order; of the ``same_total`` whose score is the same, ``reworded_total`` read otherwise.
    ``unjudged_total`` were scored of one model only, or of none."""

    broken: tuple[AnswerChange, ...]
    fixed: tuple[AnswerChange, ...]
    broken_total: int
    fixed_total: int
    same_total: int
    reworded_total: int
    unjudged_total: int


def quality(prediction: Prediction) -> float | None:
    """The number by which one answer is better than another: the score; of a description (CHAIR),
    how few mentions are made up, since its score only tells whether there is any. None: not
    judged."""
    if "wrong" in prediction.counts:
        return -prediction.counts["wrong"]
    return prediction.score


def changes(
    before: Iterable[Prediction], after: Iterable[Prediction], most: int = MOST
) -> AnswerChanges:
    """Compares answers that come in the same order, one pair in memory at a time, and keeps at most
    ``most`` of each kind: those whose ids come first in an order drawn by the id alone, so that
    any two models are shown by the same questions as far as they can be, from all over the file.
    Raises ValueError where the questions differ."""
    better, worse = _Few(most), _Few(most)
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
        else:
            (better if now > was else worse).add(number, AnswerChange(old, new))
    kept = worse.kept(), better.kept()
    return AnswerChanges(*kept, worse.total, better.total, same, reworded, unjudged)


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


def render(outcome: Outcome) -> str:
    """The page's text. Everything that a model or a file said is escaped."""
    benchmarks = [_benchmark(i, one) for i, one in enumerate(outcome.answered)]
    return template("report/changed.html").render(name=outcome.report.name, benchmarks=benchmarks)


def _benchmark(number: int, answered: Answered) -> Json:
    before, after = (read_jsonl(path, Prediction) for path in (answered.base, answered.aligned))
    found = changes(before, after)
    shown = found.broken + found.fixed
    wanted = {change.before.sample_id for change in shown}
    pictures = {name: thumbnail(load) for name, load in answered.pictures(wanted)}
    return {
        "name": answered.benchmark,
        "protocol": answered.protocol,
        "anchor": f"benchmark-{number}",
        "found": found,
        "kinds": [
            ("broken", found.broken_total, cards(found.broken, pictures)),
            ("fixed", found.fixed_total, cards(found.fixed, pictures)),
        ],
    }


def thumbnail(load: Callable[[], Image]) -> Json | None:
    """A small inlined picture; None where the file was lost since it was asked about."""
    try:
        return inlined(load(), SIDE)
    except (StageError, OSError):
        return None


def cards(shown: Sequence[AnswerChange], pictures: dict[str, Json | None]) -> list[Json]:
    """The page's card of each change."""
    return [
        {
            "id": change.before.sample_id,
            "type": change.before.type,
            "picture": pictures.get(change.before.sample_id),
            "question": change.before.prompt,
            "long": len(change.before.prompt) > LONG,
            "target": change.before.target,
            "answers": [_answer("Base", change), _answer("Aligned", change)],
        }
        for change in shown
    ]


def _answer(title: str, change: AnswerChange) -> Json:
    mine, other = change.before, change.after
    if title == "Aligned":
        mine, other = other, mine
    worth, others = quality(mine), quality(other)
    assert worth is not None
    assert others is not None
    return {
        "title": title,
        "asked": mine.prompt if mine.prompt != change.before.prompt else "",
        "better": worth > others,
        "text": marked(mine.text, (other.text,)),
        "extracted": mine.extracted if mine.extracted != mine.text else "",
        "score": _score(mine),
    }


def _score(prediction: Prediction) -> str:
    if "wrong" in prediction.counts:
        return f"{prediction.counts['wrong']:g} made up"
    words = {0.0: "wrong", 1.0: "right"}
    score = prediction.score or 0.0
    return words.get(score) or f"score {score:.2g}"
