"""What the scores share that are made of log-probabilities under the run's own model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from seva_exp.core.records import AnswerGroup
from seva_exp.scores.base import CandidateScore, Desk, Scorer, Values

Ways = tuple[tuple[bool, str], ...]
"""(by the policy, with which picture: clean, view, none) of each look at an answer."""
Means = Mapping[tuple[bool, str], float]
"""By the way of looking: an answer's mean log-probability per token."""


class LogprobScore(CandidateScore):
    """Base: each answer is looked at in some ways, and its means make one value."""

    @property
    def needs_model(self) -> bool:
        return True

    @property
    @abstractmethod
    def ways(self) -> Ways:
        """How each answer is looked at."""

    @property
    def without_picture(self) -> bool:
        """Whether an answer is also looked at without a picture, on plain rows."""
        return any(picture == "none" for _, picture in self.ways)

    @abstractmethod
    def value(self, means: Means) -> float:
        """The score of one answer."""

    @contextmanager
    def scorer(self, desk: Desk, groups: Sequence[AnswerGroup]) -> Iterator[Scorer]:
        from seva_exp.training.answer_logprobs import Look, Reading, reading

        how = Reading(
            desk.load_base(), desk.root, desk.placement, desk.fast, desk.label,
            desk.view, desk.everyone, desk.start,
        )  # fmt: skip
        looks = [Look(policy, picture) for policy, picture in self.ways]  # type: ignore[arg-type]

        with reading(how, groups) as read:

            def score(some: Sequence[AnswerGroup]) -> Values:
                seen = [read(some, look) for look in looks]
                return [
                    tuple(self._value(means) for means in zip(*of_group, strict=True))
                    for of_group in zip(*seen, strict=True)
                ]

            yield score

    def _value(self, means: Sequence[float | None]) -> float | None:
        found = dict(zip(self.ways, means, strict=True))
        known = {way: mean for way, mean in found.items() if mean is not None}
        return self.value(known) if len(known) == len(found) else None
