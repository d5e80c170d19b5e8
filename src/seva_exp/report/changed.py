"""``changed.html``: answers that a model fixed and broke, beside those of the model before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL.Image import Image

from seva_exp.benchmarks.changes import AnswerChange, changes, quality
from seva_exp.core.errors import StageError
from seva_exp.core.records import Prediction, read_jsonl
from seva_exp.core.spec import Json
from seva_exp.report.gallery import inlined, marked
from seva_exp.report.pages import template
from seva_exp.runs.events import Answered, Outcome

SIDE = 160
"""Largest side of an inlined picture, in pixels."""
LONG = 400
"""Characters of a question beyond which it is folded."""


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
