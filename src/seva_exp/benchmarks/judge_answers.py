"""The judge stage's work: a judge reads the answers that no rule could, each as often as there are
repeats; then scores, with their spread over the repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev

from seva_exp.benchmarks.base import Benchmark, Metric, Question, ratio
from seva_exp.benchmarks.judging import TRIES, Judge, Judging, Messages, Query, Shown
from seva_exp.benchmarks.question import Scored
from seva_exp.benchmarks.replies import JudgeReply, Replies, ask_all
from seva_exp.core.interfaces import Progress
from seva_exp.core.machine import JudgeServer
from seva_exp.core.records import Judgement, Prediction, Score
from seva_exp.core.spec import Json

CHARACTERS = 4
"""Of a token, about, in an estimate."""


@dataclass(frozen=True)
class Case:
    """One answer to be judged, the ``repeat``-th time."""

    question: Question
    prediction: Prediction
    messages: Messages
    repeat: int
    picture: Shown | None = None

    @property
    def id(self) -> tuple[str, int]:
        """Unique in a stage."""
        return self.question.id, self.repeat

    def judgement(self, reply: str, scored: Scored | None) -> Judgement:
        """The judge's reply and score as a record."""
        found = scored or Scored("", None, {})
        return Judgement(*self.id, reply, found.extracted, found.score, found.counts)


@dataclass(frozen=True)
class Bench:
    """A benchmark (None: what is judged are no answers to one) with its judge, and the folder of
    kept replies."""

    benchmark: Benchmark | None
    judging: Judging
    judge: Judge
    replies: Replies

    def cases(self, questions: Sequence[Question], found: Sequence[Prediction]) -> list[Case]:
        """The answers to ``questions`` that a judge has to score."""
        by_id = {question.id: question for question in questions}
        return [
            Case(by_id[prediction.sample_id], prediction, messages, repeat)
            for prediction in found
            if (messages := self.judging.ask(by_id[prediction.sample_id], prediction))
            for repeat in range(self.judge.repeats)
        ]

    def query(self, case: Case, attempt: int) -> Query:
        """The judge's prompt of the ``attempt``-th try (from 0)."""
        return self.judge.query(self.judging, case.messages, case.repeat, attempt, case.picture)

    def read(self, case: Case, reply: str) -> Judgement:
        """The judgement that a reply gives of an answer."""
        return case.judgement(reply, self.judging.read(reply, case.question, case.prediction))

    def known(self, case: Case) -> Judgement | None:
        """The judgement that the store holds."""
        replies = (self.replies.find(self.query(case, attempt)) for attempt in range(TRIES))
        found = (self.read(case, reply) for reply in replies if reply is not None)
        return next((one for one in found if one.score is not None), None)

    def hear(self, reply: JudgeReply, cases: Sequence[Case]) -> list[Judgement]:
        """The judgements of the cases that ask the same; a reply that says something is kept."""
        if reply.refused:
            return [case.judgement(reply.text, None) for case in cases]
        found = [self.read(case, reply.text) for case in cases]
        if any(one.score is not None for one in found):
            self.replies.keep(reply)
        return found


def judge_all(
    bench: Bench,
    cases: Sequence[Case],
    server: JudgeServer,
    progress: Progress,
    warn: Callable[[str], None],
    label: str,
) -> tuple[list[Judgement], Json]:
    """A judgement of each case, in their order, and a summary. What the store holds is not asked
    again. A reply that cannot be read is, hotter each time; at last there is no verdict."""
    found = {case.id: known for case in cases if (known := bench.known(case))}
    counted = Counter(judgements=len(cases), from_store=len(found))
    with progress(label, len(cases), "judgement") as meter:
        meter.update(len(found))
        for attempt in range(TRIES):
            left = [case for case in cases if case.id not in found or found[case.id].score is None]
            for reply, judgements in _round(bench, left, attempt, server, warn, label):
                found |= {(one.sample_id, one.repeat): one for one in judgements}
                meter.update(sum(one.score is not None for one in judgements))
                counted.update(
                    calls=1, tokens_sent=reply.prompt_tokens, tokens_back=reply.reply_tokens
                )
    summary: Json = {name: counted[name] for name in ("judgements", "from_store", "calls")}
    summary["unjudged"] = sum(one.score is None for one in found.values())
    if counted["tokens_sent"]:
        tokens = counted["tokens_sent"], counted["tokens_back"]
        summary |= {"tokens_sent": tokens[0], "tokens_back": tokens[1]}
        summary |= {} if (cost := server.cost(*tokens)) is None else {"cost": round(cost, 4)}
    return [found[case.id] for case in cases], summary


def _round(
    bench: Bench,
    cases: Sequence[Case],
    attempt: int,
    server: JudgeServer,
    warn: Callable[[str], None],
    label: str,
) -> Iterator[tuple[JudgeReply, list[Judgement]]]:
    """Ask once what the cases ask, equal questions once."""
    cases_of: dict[Query, list[Case]] = {}
    for case in cases:
        cases_of.setdefault(bench.query(case, attempt), []).append(case)

    def name(query: Query) -> str:
        return f"{label}: question {cases_of[query][0].question.id}"

    for some in ask_all(server, list(cases_of), name, warn) if cases_of else ():
        for reply in some:
            yield reply, bench.hear(reply, cases_of[reply.query])


def settled(
    found: Sequence[Prediction], judgements: Sequence[Judgement], repeat: int | None = None
) -> list[Prediction]:
    """The predictions with what the judge says: one repeat's verdict, or the mean of all. Those
    without a verdict stay what the rules made of them."""
    by_id: dict[str, list[Judgement]] = {}
    for one in judgements:
        if one.score is not None and repeat in (None, one.repeat):
            by_id.setdefault(one.sample_id, []).append(one)
    return [_settled(one, by_id.get(one.sample_id, [])) for one in found]


def _settled(prediction: Prediction, judgements: Sequence[Judgement]) -> Prediction:
    if not judgements:
        return prediction
    return replace(
        prediction,
        extracted=" | ".join(one.extracted for one in judgements),
        score=fmean(one.score for one in judgements if one.score is not None),
        counts={
            name: fmean(one.counts[name] for one in judgements) for name in judgements[0].counts
        },
    )


def judged_scores(
    benchmark: Benchmark,
    found: Sequence[Prediction],
    judgements: Sequence[Judgement],
    names: dict[str, str],
) -> list[Score]:
    """Scores of what has a verdict (or needs none), with their spread over the repeats, and the
    share of judgements that could not be had."""
    from seva_exp.benchmarks.statistics import scores

    spread = _spread(benchmark, found, judgements)
    decided = scored(settled(found, judgements))
    out = [
        replace(score, spread=spread.get((score.split, score.metric)))
        for score in (scores(benchmark.metrics, decided, **names) if decided else [])
    ]
    missed: dict[str, list[float]] = {}
    for one in judgements:
        missed.setdefault(one.sample_id, []).append(float(one.score is None))
    unjudged = [
        replace(one, counts={"asked": 1.0, "unjudged": fmean(missed[one.sample_id])})
        for one in found
        if one.sample_id in missed
    ]
    return out + (scores(_unjudged, unjudged, **names) if unjudged else [])


def _unjudged(types: Sequence[str]) -> Sequence[Metric]:
    return [Metric("all", "unjudged", ratio("unjudged"), (tuple(types),), "lower")]


def _spread(
    benchmark: Benchmark, found: Sequence[Prediction], judgements: Sequence[Judgement]
) -> dict[tuple[str, str], float]:
    """The standard deviation of each metric over the repeats (of all of them, as MM-Vet's script
    has it); empty where there is one."""
    from seva_exp.benchmarks.statistics import GroupSums

    repeats = sorted({one.repeat for one in judgements})
    if len(repeats) < 2:
        return {}
    values: dict[tuple[str, str], list[float]] = {}
    for repeat in repeats:
        table = GroupSums(scored(settled(found, judgements, repeat)))
        for metric in benchmark.metrics(table.types):
            if (value := table.value(metric)) is not None:
                values.setdefault((metric.split, metric.name), []).append(value)
    return {name: round(pstdev(some), 9) for name, some in values.items()}


def scored(found: Sequence[Prediction]) -> list[Prediction]:
    """Without those that nothing has scored."""
    return [one for one in found if one.score is not None]


@dataclass(frozen=True)
class Estimate:
    """Calls and cost that judging will take; ``most``: at most, since the answers are not there
    yet."""

    calls: int
    tokens_sent: int
    tokens_back: int
    most: bool


def estimate(
    bench: Bench, questions: Sequence[Question], found: Sequence[Prediction] | None
) -> Estimate:
    """Calls, and about how many tokens, without retries. Where there are no answers yet, the
    longest stand in for them, and none is like another."""
    assert bench.benchmark
    answers = found or [
        bench.benchmark.predict(question, "word " * question.max_new_tokens)
        for question in questions
    ]
    cases = bench.cases(questions, answers)
    queries = [bench.query(case, 0) for case in cases if not (found and bench.known(case))]
    if found:
        queries = list(dict.fromkeys(queries))
    sent = sum(len(text) for query in queries for _, text in query.messages) // CHARACTERS
    back = sum(query.max_tokens for query in queries)
    return Estimate(len(queries), sent, back, found is None)
