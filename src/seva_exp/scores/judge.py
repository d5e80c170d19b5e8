"""What a judge says of an answer's claims: the model itself, or one that a server holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Literal

from pydantic import Field, field_validator

from seva_exp.benchmarks.judge_answers import Bench, Case, judge_all
from seva_exp.benchmarks.judging import OWN, Judging, Shown
from seva_exp.benchmarks.question import Question, Scored
from seva_exp.benchmarks.replies import Replies
from seva_exp.benchmarks.shapes import yes_or_no
from seva_exp.core.interfaces import Request
from seva_exp.core.records import CLEAN, AnswerGroup, Prediction
from seva_exp.core.texts import sentences
from seva_exp.decoding import HfGeneration
from seva_exp.decoding.engines import engine_of
from seva_exp.inputs.images import load_image
from seva_exp.inputs.views import View
from seva_exp.scores.base import CandidateScore, Desk, Scorer, Values

REPLY = 8
"""Tokens of the longest verdict."""
_CLAUSE = re.compile(r"[,;]\s+(?:and\s+)?|\s+and\s+")
Verdicts = Mapping[str, float | None]
"""By the claim's id: 1 for yes, 0 for no; None: nothing could be read."""


@dataclass(frozen=True)
class Claim:
    """A claim of one answer, as it is asked about its sample's picture."""

    id: str
    asked: str
    group: AnswerGroup


class JudgeScore(CandidateScore):
    """-(number of claims that are denied): RLAIF-V (arXiv:2405.17220) splits an answer into claims,
    asks an open model yes or no about each and the picture, and counts the rejected ones. A claim
    of which nothing can be read counts for nothing."""

    kind: Literal["judge"] = "judge"
    by: Literal["self", "judge"] = "self"
    """Who is asked: the run's own model, as the round begins, or the one of the group ``judge``,
    which is shown the picture too."""
    split: Literal["sentences", "clauses", "whole"] = "sentences"
    """What a claim is: a sentence; a part of one between commas and "and"; the whole answer."""
    template: str = "Is this true of the picture? {claim}\nAnswer yes or no."
    """What is asked; {claim} is filled in, and {question}, the sample's own, where it stands."""
    lead: str = Field("", description="words at a claim's beginning that are left out of it")

    @field_validator("template")
    @classmethod
    def _placeholder(cls, text: str) -> str:
        if "{claim}" not in text:
            raise ValueError("{claim} must stand in it")
        return text

    @property
    def needs_model(self) -> bool:
        return self.by == "self"

    @property
    def needs_judge(self) -> bool:
        return self.by == "judge"

    @property
    def no_verdict(self) -> str:
        return ""

    def claims(self, text: str) -> list[str]:
        """The claims of an answer, without the lead and a final full stop; none of nothing."""
        parts = [text] if self.split == "whole" else sentences(text)
        if self.split == "clauses":
            parts = [clause for part in parts for clause in _CLAUSE.split(part)]
        found = (part.strip().removeprefix(self.lead).strip().rstrip(".") for part in parts)
        return [claim for claim in found if claim]

    def verdicts(self, group: AnswerGroup) -> int:
        return sum(len(self.claims(text)) for text in group.texts)

    def asked(self, claim: str, question: str) -> str:
        """What is asked of a claim."""
        parts = re.split(r"(\{claim\}|\{question\})", self.template)
        filled = {"{claim}": claim, "{question}": question}
        return "".join(filled.get(part, part) for part in parts)

    @property
    def judging(self) -> Judging:
        """How a served judge is asked."""

        def read(reply: str, question: Question, prediction: Prediction) -> Scored | None:
            said = yes_or_no(reply)
            return Scored(said, float(said == "yes"), {}) if said else None

        material = {"template": self.template}
        return Judging(OWN, 0.0, REPLY, material, lambda q, p: (("user", q.prompt),), read)

    @contextmanager
    def scorer(self, desk: Desk, groups: Sequence[AnswerGroup]) -> Iterator[Scorer]:
        ask = _asks_model(desk) if self.by == "self" else partial(_ask_judge, self.judging, desk)

        def score(some: Sequence[AnswerGroup]) -> Values:
            of = [[self._claims_of(group, n) for n in range(len(group.texts))] for group in some]
            verdicts = ask([claim for group in of for answer in group for claim in answer])
            return [tuple(self.value(verdicts, answer) for answer in group) for group in of]

        yield score

    def _claims_of(self, group: AnswerGroup, number: int) -> list[Claim]:
        question = group.sample.prompt
        return [
            Claim(f"{group.sample.id}#{number}.{k}", self.asked(claim, question), group)
            for k, claim in enumerate(self.claims(group.texts[number]))
        ]

    @staticmethod
    def value(verdicts: Verdicts, claims: Sequence[Claim]) -> float | None:
        """The score of an answer with these claims; None where no verdict could be read."""
        known = [v for claim in claims if (v := verdicts[claim.id]) is not None]
        return -sum(1 - verdict for verdict in known) if known else None


def _asks_model(desk: Desk) -> Callable[[Sequence[Claim]], Verdicts]:
    """Asks the run's own model, greedily."""
    generation = HfGeneration(max_new_tokens=REPLY)
    view = View(CLEAN, None, desk.seed)
    engine = engine_of(generation, desk.source, desk.load_policy, desk.placement, view)

    def ask(claims: Sequence[Claim]) -> Verdicts:
        requests = [
            Request(c.id, image.sha256, partial(load_image, desk.root, image), c.asked, REPLY)
            for c in claims
            for image in (c.group.sample.image,)
        ]
        said = {r.id: yes_or_no(r.text) for some in engine.run(requests) for r in some}
        return {id: float(word == "yes") if word else None for id, word in said.items()}

    return ask


def _ask_judge(judging: Judging, desk: Desk, claims: Sequence[Claim]) -> Verdicts:
    """Asks the judge; what the store holds of its replies is not asked again."""
    judge = desk.judge
    assert judge
    bench = Bench(None, judging, judge, Replies(desk.store))
    cases = []
    for claim in claims:
        image = claim.group.sample.image
        load = partial(load_image, desk.root, image)
        question = Question(claim.id, image.sha256, "claim", claim.asked, "", REPLY, load)
        answer = question.answered("", Scored("", None, {}))
        shown = Shown(image.sha256, load)
        cases += [
            Case(question, answer, (("user", claim.asked),), repeat, shown)
            for repeat in range(judge.repeats)
        ]
    warn = desk.placement.warn
    found, _ = judge_all(bench, cases, desk.judge_server, _no_bar, warn, desk.label)
    by_claim: dict[str, list[float]] = {claim.id: [] for claim in claims}
    for one in found:
        if one.score is not None:
            by_claim[one.sample_id].append(one.score)
    return {id: fmean(scores) if scores else None for id, scores in by_claim.items()}


@contextmanager
def _no_bar(label: str, total: int, unit: str) -> Iterator[_Silent]:
    """The stage's own bar counts samples."""
    yield _Silent()


class _Silent:
    def update(self, count: int) -> None:
        """Nothing is shown."""
