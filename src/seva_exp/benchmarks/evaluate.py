"""The evaluate stage's work: ask every question, score every answer, resumable.

With describe-and-respond there are two passes: one description a picture, which all the questions
on it share (it does not depend on the question, so to describe once is to describe the same), then
the questions behind it. Both passes write to one journal. Several processes share the pictures: a
picture's description and its questions are one process's, in a journal of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from seva_exp.core.spec import Json
from seva_exp.core.store import PARTS, Journal, read_journal
from seva_exp.core.texts import is_empty

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
    rank: int = 0,
    ranks: int = 1,
    root: Path | None = None,
) -> int:
    """Ask what no journal in ``placement.work`` holds yet of every ``ranks``-th picture; return how
    many questions that were, without descriptions. ``root`` is the data root."""
    questions = benchmark.chosen(root)
    pictures = list(dict.fromkeys(question.group for question in questions))
    own = {*pictures[rank::ranks]}
    mine = [question for question in questions if question.group in own]
    asking = _Asking(cache(engine), placement, label, rank)
    sent = mine
    if mode := benchmark.describe_and_respond:
        _describe(mode, mine, len(pictures), asking)
        texts = {row["picture"]: row["text"] for row in asking.rows if "picture" in row}
        sent = [_behind(mode, texts[question.group], question) for question in mine]
    scored = {question.id: question for question in mine}
    prompts = {question.id: question.prompt for question in sent}

    def record(reply: Reply) -> Prediction:
        # Scoring sees the benchmark's own question, not the one that the model got.
        found = benchmark.predict(scored[reply.id], reply.text)
        return replace(found, prompt=prompts[reply.id], stop=reply.stop)

    return asking.run(sent, len(questions), record, "sample_id", "question")


def conclude(
    benchmark: Benchmark, work: Path, *, model: str, name: str, root: Path | None = None
) -> tuple[Json, list[Score]]:
    """When everything is asked: write ``predictions.jsonl`` (in the questions' order) and, with
    describe-and-respond, ``descriptions.jsonl``; return a summary and the scores."""
    questions = benchmark.chosen(root)
    summary: Json = {"questions": len(questions)}
    rows = list(_journaled(work))
    if benchmark.describe_and_respond:
        by_picture = {row["picture"]: Description(**row) for row in rows if "picture" in row}
        described = [by_picture[group] for group in dict.fromkeys(q.group for q in questions)]
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
    first = {question.group: question for question in reversed(questions)}
    requests = [
        replace(first[group], id=group, prompt=mode.prompt, max_new_tokens=mode.max_new_tokens)
        for group in dict.fromkeys(question.group for question in questions)
    ]

    def record(reply: Reply) -> Description:
        return Description(reply.id, mode.prompt, reply.text, reply.stop)

    asking.run(requests, total, record, "picture", "description")


def _behind(mode: DescribeAndRespond, description: str, question: Question) -> Question:
    return replace(question, prompt=mode.infuse(description, question.prompt))


class _Asking:
    """Questions to the engine, finished batches into the journal. The engine is made when there is
    something to ask. Rows of one kind are told by the name of their id."""

    def __init__(
        self, engine: Callable[[], AnswerEngine], placement: Placement, label: str, rank: int
    ) -> None:
        self._engine = engine
        self._progress = placement.progress
        self._label = label
        (placement.work / PARTS).mkdir(exist_ok=True)
        self._journal = Journal(placement.work / PARTS, f"journal-{rank}.jsonl")
        self.rows = list(_journaled(placement.work))

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
        done = {row[id_name] for row in self.rows if id_name in row}
        todo = [_request(question) for question in questions if question.id not in done]
        too_long = sum(r["stop"] == TOO_LONG for r in self.rows if id_name in r and "stop" in r)
        with self._progress(self._label, total, unit) as meter:
            meter.update(len(questions) - len(todo))
            for replies in self._engine().run(todo) if todo else ():
                too_long += sum(reply.stop == TOO_LONG for reply in replies)
                refuse_too_long(self._label, too_long, total)
                rows = [asdict(record(reply)) for reply in replies]
                self._journal.append(rows)
                self.rows += rows
                meter.update(len(replies))
        return len(todo)


def _journaled(work: Path) -> Iterator[Json]:
    """What is in the journals of all processes, those of killed ones too."""
    for file in sorted((work / PARTS).glob("journal-*.jsonl")):
        yield from read_journal(file)


def _request(question: Question) -> Request:
    return Request(
        question.id, question.group, question.load, question.prompt, question.max_new_tokens
    )
