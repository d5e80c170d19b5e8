"""Answers that each model fixed and broke, beside those of the model it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seva_exp.benchmarks.changes import AnswerChange, AnswerChanges, changes
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.deltas import Measured, measured
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.records import BASE
from seva_exp.core.spec import Json, canonical
from seva_exp.inputs.user_paths import data_root
from seva_exp.report.changed import thumbnail
from seva_exp.report.gallery import marked

MOST, MODELS, LONG = 3, 12, 300
"""Answers of each kind that are shown of a model and benchmark; models of which any are shown;
characters of a question beyond which it is cut."""


@dataclass(frozen=True)
class Compared:
    """What changed in the answers to one benchmark; ``label`` names the model ``one``."""

    label: str
    one: Measured
    benchmark: str
    found: AnswerChanges


def changed(c: Comparison) -> list[Json]:
    """A row per model and benchmark, with cards of some answers; nothing where the answers are no
    longer there, or are of other questions."""
    rows = list(_compared(c))
    pictures = _pictures(rows)
    return [
        {
            "label": row.label,
            "benchmark": row.benchmark,
            "found": row.found,
            "cards": [
                _card(change, kind, pictures[_set_of(row)])
                for kind in ("broken", "fixed")
                for change in getattr(row.found, kind)
            ],
        }
        for row in rows
    ]


def _compared(c: Comparison) -> Sequence[Compared]:
    rows = []
    for shown, i in enumerate(c.finals):
        one = c.models[i]
        before = c.references.of(one) or measured(one.run, BASE)
        if c.references.has(one):
            continue
        for name in dict.fromkeys(
            column.benchmark for column in one.scores if column in before.scores
        ):
            predictions = before.predictions(name), one.predictions(name)
            if not all(predictions) or [p.sample_id for p in predictions[0]] != [
                p.sample_id for p in predictions[1]
            ]:
                continue
            found = changes(*predictions, most=MOST if shown < MODELS else 0)
            rows.append(Compared(c.labels[i], one, name, found))
    return rows


def _set_of(row: Compared) -> str:
    """Equal for rows that show the same questions."""
    return canonical([row.benchmark, row.one.run.experiment["benchmark"][row.benchmark]])


def _pictures(rows: Sequence[Compared]) -> dict[str, dict[str, Json | None]]:
    """The shown questions' pictures by id, for each set of questions read once; none where the
    benchmark's files are not there."""
    wanted: dict[str, set[str]] = {}
    for row in rows:
        ids = {change.before.sample_id for change in row.found.broken + row.found.fixed}
        wanted.setdefault(_set_of(row), set()).update(ids)
    first = {_set_of(row): row for row in reversed(rows)}
    return {key: _load(first[key], ids) for key, ids in wanted.items()}


def _load(row: Compared, wanted: set[str]) -> dict[str, Json | None]:
    try:
        questions = row.one.run.benchmark(row.benchmark).questions(data_root(row.one.run.data_root))
        shown = (q for q in questions if q.id in wanted) if wanted else ()
        return {q.id: thumbnail(q.load) for q in shown if q.load}
    except (InputError, StageError, OSError):
        return {}


def _card(change: AnswerChange, kind: str, pictures: dict[str, Json | None]) -> Json:
    before, after = change.before, change.after
    question = before.prompt if len(before.prompt) <= LONG else before.prompt[:LONG] + "…"
    return {
        "id": before.sample_id,
        "kind": kind,
        "question": question,
        "target": before.target,
        "picture": pictures.get(before.sample_id),
        "before": marked(before.text, (after.text,)),
        "after": marked(after.text, (before.text,)),
    }
