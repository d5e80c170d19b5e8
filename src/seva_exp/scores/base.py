"""What a score is: a number for each of a sample's candidate answers, the higher the better."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from seva_exp.benchmarks.judging import Judge, Judging
from seva_exp.core.interfaces import ModelSource, Placement, VisionLanguageModel
from seva_exp.core.machine import JudgeServer
from seva_exp.core.records import AnswerGroup, Sample
from seva_exp.core.spec import Json, Spec
from seva_exp.inputs.views import View
from seva_exp.training.spec import Fast

Values = list[tuple[float | None, ...]]
"""Per group a value per answer; None where there is nothing to score."""
Scorer = Callable[[Sequence[AnswerGroup]], Values]


@dataclass(frozen=True)
class Desk:
    """What a score may use. Pictures lie below ``root``; ``everyone`` reads all samples; ``start``
    is the adapter that the round begins with (None: none), which the policy has and the base model
    has not; ``view`` is the one that the score names; ``truth`` tells what is on a sample's
    picture, where the data knows."""

    source: ModelSource
    load_base: Callable[[], VisionLanguageModel]
    load_policy: Callable[[], VisionLanguageModel]
    root: Path
    everyone: Callable[[], Iterator[Sample]]
    placement: Placement
    label: str
    seed: int
    fast: Fast = "auto"
    start: Path | None = None
    view: View | None = None
    truth: Callable[[str], str | None] = lambda id: None
    judge: Judge | None = None
    judge_server: JudgeServer = field(default_factory=JudgeServer)
    store: Path = Path()


class CandidateScore(Spec):
    """Base of the scores. What one needs stands in its class or its fields, and is asked there."""

    needs_policy: ClassVar[bool] = False
    """Whether it compares the policy with the unaligned model: in round 1 they are one."""
    kind: str
    weight: float = Field(1.0, description="its weight, where several scores are mixed")
    since: int = Field(1, ge=1, description="the first round in which it is asked")
    until: int | None = Field(
        None, ge=1, description="the last round in which it is asked; null: the run's last"
    )

    @model_validator(mode="after")
    def _some_round(self) -> CandidateScore:
        if self.until is not None and self.until < self.since:
            raise ValueError(f"until={self.until} is below since={self.since}: it is never asked.")
        if self.weight == 0:
            raise ValueError("weight=0: it would be asked for nothing; leave the score out.")
        return self

    @property
    def no_verdict(self) -> str:
        """Why its value does not tell whether a sentence is right (0 or more) or wrong (below 0);
        empty where it does."""
        return "puts answers in an order, and finds no mistakes"

    def in_round(self, number: int) -> bool:
        """Whether it is asked in this round (from 1)."""
        return self.since <= number and (self.until is None or number <= self.until)

    @property
    def needs_model(self) -> bool:
        """Whether the run's own model is loaded for it."""
        return False

    @property
    def needs_judge(self) -> bool:
        """Whether it asks the run's judge."""
        return False

    @property
    def judging(self) -> Judging | None:
        """How the run's judge is asked; None where it is not."""
        return None

    @property
    def needs_truth(self) -> bool:
        """Whether it looks at what the data knows of its pictures."""
        return False

    @property
    def looks_at(self) -> str | None:
        """The negative view of ``aug`` that it looks at; None: at none."""
        return None

    def lacking(self, where: str) -> str | None:
        """What must still be given before work can start."""
        return None

    def check(self, where: str) -> None:
        """Raises InputError for what is wrong outside the spec (a file, say); quick. Never called
        while something is lacking."""

    def verdicts(self, group: AnswerGroup) -> int:
        """How many answers it asks for in order to score these."""
        return 0

    def identity(self, sha256: Callable[[Path], str]) -> Json:
        """All that decides the values: no weight, no round, and of files the contents."""
        return {name: v for name, v in self.to_json().items() if name not in _NOT_OF_THE_VALUES}

    @abstractmethod
    def scorer(self, desk: Desk, groups: Sequence[AnswerGroup]) -> AbstractContextManager[Scorer]:
        """A function that scores some of ``groups``, which are all that it will be asked for."""


_NOT_OF_THE_VALUES = ("weight", "since", "until")
