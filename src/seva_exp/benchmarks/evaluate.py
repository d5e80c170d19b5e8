"""The evaluate stage's work: ask every question, score every answer, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from seva_exp.benchmarks.base import Benchmark, Question
from seva_exp.benchmarks.statistics import scores
from seva_exp.interfaces import Placement, Request
from seva_exp.records import Prediction, Score, from_json, write_jsonl
from seva_exp.spec import Json
from seva_exp.store import Journal


class Asks(Protocol):
    """The generation engine, as far as an evaluation needs it."""

    def run(self, batches: list[list[Request]], max_new_tokens: int) -> Iterator[list[Any]]: ...


def evaluate(
    benchmark: Benchmark,
    engine: Callable[[], Asks],
    placement: Placement,
    *,
    model: str,
    name: str,
) -> tuple[Json, list[Score]]:
    """Write ``predictions.jsonl`` (in the questions' order); return a summary and the scores."""
    questions = list(benchmark.questions())
    journal = Journal(placement.work)
    start = time.monotonic()
    asked = _ask(benchmark, questions, journal, engine, placement, f"evaluate.{model}.{name}")
    by_id = {row["sample_id"]: from_json(Prediction, row) for row in journal.rows}
    predictions = [by_id[question.id] for question in questions]
    write_jsonl(placement.work / "predictions.jsonl", predictions)
    found = scores(
        benchmark.metrics(),
        predictions,
        model=model,
        benchmark=name,
        protocol=benchmark.protocol,
    )
    rate = asked / (time.monotonic() - start)
    return {"questions": len(questions), "questions_per_second": round(rate, 1)}, found


def _ask(
    benchmark: Benchmark,
    questions: Sequence[Question],
    journal: Journal,
    make_engine: Callable[[], Asks],
    placement: Placement,
    label: str,
) -> int:
    """Ask what the journal does not hold yet; returns how many were asked."""
    by_id = {question.id: question for question in questions}
    done = {row["sample_id"] for row in journal.rows}
    work = [
        (length, batch)
        for length, batch in cut_by_length(questions, placement.batch_size)
        if not done.issuperset(request.id for request in batch)
    ]
    asked = sum(len(batch) for _, batch in work)
    if not asked:
        return 0
    engine = make_engine()
    with placement.progress(label, len(questions), "question") as meter:
        meter.update(len(questions) - asked)
        for length, batch in work:
            (replies,) = engine.run([batch], length)
            made = [benchmark.predict(by_id[reply.id], reply.text) for reply in replies]
            journal.append([asdict(prediction) for prediction in made])
            meter.update(len(batch))
    return asked


def cut_by_length(questions: Sequence[Question], size: int) -> list[tuple[int, list[Request]]]:
    """Batches of questions with one bound on the answer's length, those on a picture together."""
    batches = []
    for length in sorted({question.max_new_tokens for question in questions}):
        requests = sorted(
            (_request(q) for q in questions if q.max_new_tokens == length),
            key=lambda request: (request.image_key, request.id),
        )
        batches += [(length, requests[i : i + size]) for i in range(0, len(requests), size)]
    return batches


def _request(question: Question) -> Request:
    return Request(question.id, question.group, question.load, question.prompt)
