"""Which two of a sample's candidate answers make a pair, by their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seva_exp.core.interfaces import TOO_LONG
from seva_exp.core.records import Answer, AnswerGroup, Mix, Sample, Select
from seva_exp.core.spec import Json
from seva_exp.core.texts import is_empty, normalised
from seva_exp.preferences.filters import Removal

TIE, SMALL_GAP, UNSCORED, ALIKE = "tie", "small_gap", "unscored", "one_answer"
"""Why a sample makes no pair, beside ``empty``: no candidate is the best; best and worst are too
near; fewer than two have a score; all say the same."""
Scores = Mapping[str, Sequence[float | None]]
"""By the score's name: a value per candidate."""


@dataclass(frozen=True)
class Chosen:
    """Places of the two candidates, and what each candidate's scores came to."""

    best: int
    worst: int
    scores: tuple[float | None, ...]


def usable(answer: Answer) -> bool:
    """Whether there is an answer at all."""
    return answer.stop != TOO_LONG and not is_empty(answer.text)


def group_of(sample: Sample, answers: Sequence[Answer]) -> AnswerGroup:
    """The different answers of a sample that are any."""
    first: dict[str, Answer] = {}
    counts: dict[str, int] = {}
    for answer in filter(usable, answers):
        first.setdefault(answer.text, answer)
        counts[answer.text] = counts.get(answer.text, 0) + 1
    tokens = tuple(answer.tokens for answer in first.values())
    return AnswerGroup(sample, tuple(first), tokens, tuple(counts.values()))


def places_in(group: AnswerGroup, answers: Sequence[Answer]) -> list[int | None]:
    """Which of a group's different answers each candidate gave; None: none."""
    places = {text: number for number, text in enumerate(group.texts)}
    return [places[answer.text] if usable(answer) else None for answer in answers]


@dataclass(frozen=True)
class Selection:
    """A rule for two of K candidates. Scores are mixed by ``weights``: as they are (``sum``), or
    as ranks among the sample's different answers, 0 for the worst and 1 for the best (``ranks``).
    Of equal candidates the first counts."""

    how: Select = "best_worst"
    gap: float = 0.0
    mix: Mix = "sum"
    weights: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> Json:
        """All that decides which are chosen; weights in the order of the scores' stages."""
        weights = [weight for _, weight in self.weights]
        return {"how": self.how, "gap": self.gap, "mix": self.mix, "weights": weights}

    def __call__(self, answers: Sequence[Answer], scores: Scores) -> Chosen | Removal:
        """The two, or why there are none. ``scores`` are the answers', in their order."""
        there = [i for i, answer in enumerate(answers) if usable(answer)]
        if not there:
            return Removal("empty", f"all {len(answers)} candidates")
        first = {answers[i].text: i for i in reversed(there)}
        if len(first) == 1:
            return Removal(ALIKE, f"{len(there)} of {len(answers)} candidates, all alike")
        named = [scores[name] for name, _ in self.weights]
        known = sorted(i for i in first.values() if all(of[i] is not None for of in named))
        if len(known) < 2:
            return Removal(UNSCORED, f"{len(known)} of {len(first)} different answers have a score")
        mixed = self._mixed(known, scores)
        pick = {"best_worst": self._extremes, "margin": self._nearest}.get(self.how)
        found = pick(mixed) if pick else self._majority(answers, there, mixed)
        if isinstance(found, Removal):
            return found
        by_text = {answers[i].text: value for i, value in mixed.items()}
        return Chosen(*found, tuple(by_text.get(answer.text) for answer in answers))

    def _mixed(self, known: Sequence[int], scores: Scores) -> dict[int, float]:
        total = dict.fromkeys(known, 0.0)
        for name, weight in self.weights:
            values = [value for i in known if (value := scores[name][i]) is not None]
            mixed = ranks(values) if self.mix == "ranks" else values
            for i, value in zip(known, mixed, strict=True):
                total[i] += weight * value
        return total

    def _extremes(self, mixed: Mapping[int, float]) -> tuple[int, int] | Removal:
        """The best and the worst."""
        best, worst = max(mixed, key=mixed.__getitem__), min(mixed, key=mixed.__getitem__)
        far = mixed[best] - mixed[worst]
        if far == 0:
            return Removal(TIE, f"all {len(mixed)} different answers at {mixed[best]:g}")
        return (best, worst) if far >= self.gap else self._too_near(far)

    def _nearest(self, mixed: Mapping[int, float]) -> tuple[int, int] | Removal:
        """The best, and the best of those that are at least ``gap`` below it."""
        found = self._extremes(mixed)
        if isinstance(found, Removal):
            return found
        best = found[0]
        below = {i: value for i, value in mixed.items() if mixed[best] - value >= self.gap}
        return best, max(below, key=below.__getitem__)

    def _majority(
        self, answers: Sequence[Answer], there: Sequence[int], mixed: Mapping[int, float]
    ) -> tuple[int, int] | Removal:
        """The best of what most candidates say, and the worst of what the fewest say."""
        says = {i: normalised(answers[i].text) for i in there}
        votes: dict[str, int] = {}
        for said in says.values():
            votes[said] = votes.get(said, 0) + 1
        if len(votes) == 1:
            return Removal(ALIKE, f"{len(there)} candidates say the same in other letters")
        most, fewest = max(votes.values()), min(votes.values())
        if [*votes.values()].count(most) > 1:
            return Removal(TIE, f"no majority: {[*votes.values()].count(most)} answers by {most}")
        far = (most - fewest) / len(there)
        if far < self.gap:
            return self._too_near(far)
        large = {i: value for i, value in mixed.items() if votes[says[i]] == most}
        small = {i: value for i, value in mixed.items() if votes[says[i]] == fewest}
        if not (large and small):
            return Removal(UNSCORED, "what most or what the fewest say has no score")
        return max(large, key=large.__getitem__), min(small, key=small.__getitem__)

    def _too_near(self, far: float) -> Removal:
        return Removal(SMALL_GAP, f"{far:.4g} < {self.gap:g}")


def ranks(values: Sequence[float]) -> list[float]:
    """The mean rank of each value, from 0 for the least to 1 for the largest; equal values share
    theirs."""
    ordered = sorted(values)
    last = max(1, len(values) - 1)
    return [(ordered.index(value) + (ordered.count(value) - 1) / 2) / last for value in values]
