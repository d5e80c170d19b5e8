"""The evaluate stage's work: ask every question, score every answer, resumable.

With describe-and-respond there are two passes: one description a picture, which all the questions
on it share (it does not depend on the question, so to describe once is to describe the same), then
the questions behind it; one without a picture is asked as it is. Both passes write to one journal.
Several processes share the pictures: a picture's description and its questions are one process's,
in a journal of its own (``sharing``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from seva_exp.benchmarks.base import Benchmark, Question
from seva_exp.benchmarks.describe import DescribeAndRespond, Description
from seva_exp.benchmarks.statistics import scores
from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import TOO_LONG, AnswerEngine, Placement, Reply, Request
from seva_exp.core.records import Prediction, Score, from_json, write_jsonl
from seva_exp.core.sharing import ClaimedPieces, Sharing
from seva_exp.core.spec import Json
from seva_exp.core.texts import is_empty

PIECE, PIECES = 64, 64
"""Questions that are taken together at most; a benchmark of fewer is cut into so many pieces."""
MOST_TOO_LONG = 0.05
"""Share of a benchmark's questions that may not fit the model's context; with more it is refused,
as soon as they are seen."""
TOLD = 20
"""Questions that a summary names."""


def ask(
    benchmark: Benchmark,
    engine: Callable[[], AnswerEngine],
    placement: Placement,
    label: str,
    sharing: Sharing | None = None,
    root: Path | None = None,
) -> int:
    """Ask what no journal in ``placement.work`` holds yet, of the pictures that no other process
    takes; return how many questions that were, without descriptions. ``root`` is the data root.
    Without ``sharing`` all is done here."""
    questions = benchmark.chosen(root)
    if sharing is None:
        (sharing := Sharing(placement.work)).begin()
    asking = _Asking(cache(engine), placement, label, sharing)
    pieces, asked = dict(enumerate(_pieces(questions))), 0
    sizes = {number: len(piece) for number, piece in pieces.items()}
    while (taken := sharing.take(sizes)).pieces:
        asking.inherit(taken)
        mine = [question for number in taken.pieces for question in pieces[number]]
        asked += _ask(benchmark, questions, mine, asking)
    return asked


def _pieces(questions: Sequence[Question]) -> list[list[Question]]:
    """The questions in runs of their order; those of one group, wherever they stand, are in
    one."""
    size = min(PIECE, max(1, len(questions) // PIECES))
    by_group: dict[str, list[Question]] = {}
    for question in questions:
        by_group.setdefault(question.group, []).append(question)
    pieces: list[list[Question]] = []
    for some in by_group.values():
        if not pieces or len(pieces[-1]) >= size:
            pieces.append([])
        pieces[-1] += some
    return pieces


def _ask(
    benchmark: Benchmark, every: Sequence[Question], mine: Sequence[Question], asking: _Asking
) -> int:
    """Ask ``mine`` of all questions."""
    sent = mine
    if mode := benchmark.describe_and_respond:
        _describe(mode, mine, len(_pictures(every)), asking)
        texts = {row["picture"]: row["text"] for row in asking.rows if "picture" in row}
        sent = [_behind(mode, texts, question) for question in mine]
    scored = {question.id: question for question in mine}
    prompts = {question.id: question.prompt for question in sent}

    def record(reply: Reply) -> Prediction:
        # Scoring sees the benchmark's own question, not the one that the model got.
        found = benchmark.predict(scored[reply.id], reply.text)
        return replace(found, prompt=prompts[reply.id], stop=reply.stop)

    return asking.run(sent, len(every), record, "sample_id", "question")


def conclude(
    benchmark: Benchmark, work: Path, *, model: str, name: str, root: Path | None = None
) -> tuple[Json, list[Score]]:
    """When everything is asked: write ``predictions.jsonl`` (in the questions' order) and, with
    describe-and-respond, ``descriptions.jsonl``; return a summary and the scores."""
    questions = benchmark.chosen(root)
    summary: Json = {"questions": len(questions)}
    rows = list(Sharing(work).rows())
    if benchmark.describe_and_respond:
        by_picture = {row["picture"]: Description(**row) for row in rows if "picture" in row}
        described = [by_picture[picture] for picture in _pictures(questions)]
        write_jsonl(work / "descriptions.jsonl", described)
        cut = sum(description.stop == "length" for description in described)
        summary |= {"descriptions": len(described), "descriptions_cut_at_max_new_tokens": cut}
    found = {row["sample_id"]: row for row in rows if "sample_id" in row}
    predictions = [from_json(Prediction, found[question.id]) for question in questions]
    summary |= _counted(predictions)
    refuse_too_long(f"evaluate.{model}.{name}", summary.get(TOO_LONG, 0), len(questions))
    write_jsonl(work / "predictions.jsonl", predictions)
    protocol = benchmark.protocol_name
    return summary, scores(
        benchmark.metrics, predictions, model=model, benchmark=name, protocol=protocol
    )


def _counted(predictions: Sequence[Prediction]) -> Json:
    """Of all answers: those of nothing, and the questions that the model's context has no room for,
    whose answers count as the protocol's rule counts such an answer."""
    too_long = [p.sample_id for p in predictions if p.stop == TOO_LONG]
    empty = sum(p.stop != TOO_LONG and is_empty(p.text) for p in predictions)
    told = [f"{id}: {TOO_LONG} (counted as unanswered)" for id in too_long[:TOLD]]
    return {"empty": empty} | ({TOO_LONG: len(too_long), "left_out": told} if told else {})


def refuse_too_long(label: str, too_long: int, questions: int) -> None:
    """Raises StageError where more of a benchmark's questions do not fit the model's context than
    a score may rest on."""
    if too_long > MOST_TOO_LONG * questions:
        raise StageError(
            f"{label}: at least {too_long} of {questions} questions do not fit the model's "
            f"context, more than {MOST_TOO_LONG:.0%}: no score can rest on this. Take a model with "
            "a longer context or smaller pictures (model.max_pixels), or leave the benchmark out."
        )


def _describe(
    mode: DescribeAndRespond, questions: Sequence[Question], total: int, asking: _Asking
) -> None:
    """A description of every picture, in the order in which the questions come to it."""
    requests = [
        replace(first, id=picture, prompt=mode.prompt, max_new_tokens=mode.max_new_tokens)
        for picture, first in _pictures(questions).items()
    ]

    def record(reply: Reply) -> Description:
        return Description(reply.id, mode.prompt, reply.text, reply.stop)

    asking.run(requests, total, record, "picture", "description")


def _pictures(questions: Sequence[Question]) -> dict[str, Question]:
    """The pictures in the order in which the questions come to them, each with its first
    question."""
    found: dict[str, Question] = {}
    for question in questions:
        if question.load:
            found.setdefault(question.picture, question)
    return found


def _behind(mode: DescribeAndRespond, texts: dict[str, str], question: Question) -> Question:
    if not question.load:
        return question
    return replace(question, prompt=mode.infuse(texts[question.picture], question.prompt))


class _Asking:
    """Questions to the engine, finished batches into the journal. The engine is made when there is
    something to ask. Rows of one kind are told by the name of their id."""

    def __init__(
        self,
        engine: Callable[[], AnswerEngine],
        placement: Placement,
        label: str,
        sharing: Sharing,
    ) -> None:
        self._engine = engine
        self._progress = placement.progress
        self._label = label
        self._sharing = sharing
        self._journal = sharing.journal()
        self.rows = list(sharing.before())
        self._counted = len(self.rows)

    def inherit(self, taken: ClaimedPieces) -> None:
        """What those had done of it that died while this process worked: it was counted then."""
        self.rows += self._sharing.inherited(taken)

    def run(
        self,
        questions: Sequence[Question],
        total: int,
        record: Callable[[Reply], Any],
        id_name: str,
        unit: str,
    ) -> int:
        """Ask what the journals do not hold yet; returns how many that were. ``total`` is the
        number of all processes' questions."""
        before = {row[id_name] for row in self.rows[: self._counted] if id_name in row}
        done = {row[id_name] for row in self.rows if id_name in row}
        todo = [_request(question) for question in questions if question.id not in done]
        too_long = sum(r["stop"] == TOO_LONG for r in self.rows if id_name in r and "stop" in r)
        with self._progress(self._label, total, unit) as meter:
            meter.update(sum(question.id in before for question in questions))
            for replies in self._engine().run(todo) if todo else ():
                too_long += sum(reply.stop == TOO_LONG for reply in replies)
                refuse_too_long(self._label, too_long, total)
                rows = [asdict(record(reply)) for reply in replies]
                self._journal.append(rows)
                self.rows += rows
                meter.update(len(replies))
        return len(todo)


def _request(question: Question) -> Request:
    return Request(
        question.id, question.picture, question.load, question.prompt, question.max_new_tokens
    )
