"""The evaluate stage's work: ask every question, score every answer, resumable.

With describe-and-respond there are two passes: one description a picture, which all the questions
on it share (it does not depend on the question, so to describe once is to describe the same), then
the questions behind it. Both passes write to one journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from seva_exp.benchmarks.base import Benchmark, Question
from seva_exp.benchmarks.describe import DescribeAndRespond, Description
from seva_exp.benchmarks.statistics import scores
from seva_exp.interfaces import Asks, Placement, Reply, Request
from seva_exp.records import Prediction, Score, from_json, write_jsonl
from seva_exp.spec import Json
from seva_exp.store import Journal


def evaluate(
    benchmark: Benchmark,
    engine: Callable[[], Asks],
    placement: Placement,
    *,
    model: str,
    name: str,
    root: Path | None = None,
) -> tuple[Json, list[Score]]:
    """Write ``predictions.jsonl`` (in the questions' order) and, with describe-and-respond,
    ``descriptions.jsonl``; return a summary and the scores. ``root`` is the data
    root."""
    questions = list(benchmark.questions(root))
    asking = _Asking(cache(engine), placement, f"evaluate.{model}.{name}")
    start = time.monotonic()
    summary: Json = {"questions": len(questions)}
    sent = questions
    if mode := benchmark.describe_and_respond:
        described = _describe(mode, questions, asking)
        write_jsonl(placement.work / "descriptions.jsonl", described.values())
        sent = [_behind(mode, described[question.group], question) for question in questions]
        cut = sum(description.stop == "length" for description in described.values())
        summary |= {"descriptions": len(described), "descriptions_cut_at_max_new_tokens": cut}
    predictions, asked = _answer(benchmark, questions, sent, asking)
    write_jsonl(placement.work / "predictions.jsonl", predictions)
    found = scores(
        benchmark.metrics,
        predictions,
        model=model,
        benchmark=name,
        protocol=benchmark.protocol_name,
    )
    summary["questions_per_second"] = round(asked / (time.monotonic() - start), 1)
    return summary, found


def _describe(
    mode: DescribeAndRespond, questions: Sequence[Question], asking: _Asking
) -> dict[str, Description]:
    """The description of every picture, in the order in which the questions come to it."""
    first = {question.group: question for question in reversed(questions)}
    requests = [
        replace(first[group], id=group, prompt=mode.prompt, max_new_tokens=mode.max_new_tokens)
        for group in dict.fromkeys(question.group for question in questions)
    ]

    def record(reply: Reply) -> Description:
        return Description(reply.id, mode.prompt, reply.text, reply.stop)

    asking.run(requests, record, "picture", "description")
    by_picture = {row["picture"]: Description(**row) for row in asking.rows("picture")}
    return {request.id: by_picture[request.id] for request in requests}


def _behind(mode: DescribeAndRespond, description: Description, question: Question) -> Question:
    return replace(question, prompt=mode.infuse(description.text, question.prompt))


def _answer(
    benchmark: Benchmark,
    questions: Sequence[Question],
    sent: Sequence[Question],
    asking: _Asking,
) -> tuple[list[Prediction], int]:
    """The scored answers and how many were asked now. ``sent`` are the questions as the model gets
    them; scoring sees the benchmark's own."""
    own = {question.id: question for question in questions}
    prompts = {question.id: question.prompt for question in sent}

    def record(reply: Reply) -> Prediction:
        return replace(benchmark.predict(own[reply.id], reply.text), prompt=prompts[reply.id])

    asked = asking.run(sent, record, "sample_id", "question")
    by_id = {row["sample_id"]: from_json(Prediction, row) for row in asking.rows("sample_id")}
    return [by_id[question.id] for question in questions], asked


class _Asking:
    """Questions to the engine, finished batches into the journal. The engine is made when there is
    something to ask. Rows of one kind are told by the name of their id."""

    def __init__(self, engine: Callable[[], Asks], placement: Placement, label: str) -> None:
        self._engine = engine
        self._placement = placement
        self._label = label
        self._journal = Journal(placement.work)

    def rows(self, id_name: str) -> list[Json]:
        """What is journaled under this id."""
        return [row for row in self._journal.rows if id_name in row]

    def run(
        self,
        questions: Sequence[Question],
        record: Callable[[Reply], Any],
        id_name: str,
        unit: str,
    ) -> int:
        """Ask what the journal does not hold yet; returns how many that were."""
        done = {row[id_name] for row in self.rows(id_name)}
        todo = [_request(question) for question in questions if question.id not in done]
        if not todo:
            return 0
        engine = self._engine()
        with self._placement.progress(self._label, len(questions), unit) as meter:
            meter.update(len(questions) - len(todo))
            for replies in engine.run(todo):
                self._journal.append([asdict(record(reply)) for reply in replies])
                meter.update(len(replies))
        return len(todo)


def _request(question: Question) -> Request:
    return Request(
        question.id, question.group, question.load, question.prompt, question.max_new_tokens
    )
