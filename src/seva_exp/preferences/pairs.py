"""The pairs stage's work: clean and augmented answers to preferences, read side by side. SeVa 1.1
and 1.2: the answer to the clean image is preferred; what the filters remove is counted with its
reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from statistics import fmean

from seva_exp.core.records import Answer, Drop, Pair, Sample
from seva_exp.core.spec import Json
from seva_exp.decoding.spec import Newlines
from seva_exp.preferences.filters import Candidate, EqualFilter, Filter, PairRule, Removal, no_pair

EASIER = "easier"
"""Why an answer is not rejected where another one is harder to tell from the chosen one."""
NO_ANSWER = "no rejected answer"
"""Why a sample is left out to which no source has one."""


@dataclass(frozen=True)
class Candidates:
    """A sample and its candidates, in the order of the views; ``drop``: why there are none, where
    that is known."""

    sample: Sample
    candidates: tuple[Candidate, ...]
    drop: Drop | None = None


@dataclass(frozen=True)
class PairingResult:
    """A sample's pair or drop, and why each answer (by its view) that makes no pair makes none."""

    result: Pair | Drop
    removed: tuple[tuple[str, Removal], ...]


def grouped(
    samples: Iterable[Sample],
    clean: Iterable[Answer],
    negatives: Mapping[str, Iterable[Answer]],
    sparse: bool = False,
) -> Iterator[Candidates]:
    """Answers beside their samples; all stand in the samples' order. A view may have answered some
    of the samples only, and a source of texts may have several answers to one. Each sample needs
    one negative answer at least, unless the sources are ``sparse``. The views are called as in this
    run, whatever they were called when the answers were made."""
    for sample, (best, *others) in side_by_side(samples, [clean, *negatives.values()]):
        assert best, f"the clean view did not answer sample {sample.id} in its turn"
        found = candidates_of(sample, best[0], dict(zip(negatives, others, strict=True)))
        told = f"no negative view answered sample {sample.id} in its turn"
        assert found.candidates or sparse, told
        yield found


def side_by_side(
    samples: Iterable[Sample], sources: Iterable[Iterable[Answer]]
) -> Iterator[tuple[Sample, list[list[Answer]]]]:
    """Each sample with its answers of each source; all stand in the samples' order."""
    waiting = [_Answers(rows) for rows in sources]
    for sample in samples:
        yield sample, [answers.to(sample) for answers in waiting]
    assert not any(left.next for left in waiting), "answers to no sample"


def candidates_of(
    sample: Sample, best: Answer, negatives: Mapping[str, Sequence[Answer]]
) -> Candidates:
    """The clean answer beside each negative one, by view."""
    found = ((view, answer) for view, rows in negatives.items() for answer in rows)
    return Candidates(
        sample, tuple(Candidate(sample.id, view, best, answer) for view, answer in found)
    )


def answered(
    samples: Iterable[Sample], answers: Sequence[Iterable[Answer]]
) -> Iterator[tuple[Sample, tuple[Answer, ...]]]:
    """Each sample with one answer of each of several sources, in their order; all stand in the
    samples' order."""
    for sample, *found in zip(samples, *answers, strict=True):
        assert all(one.sample_id == sample.id for one in found), "the samples' order"
        yield sample, tuple(found)


class _Answers:
    """Answers of which each waits until its sample comes."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = iter(answers)
        self.next = next(self._answers, None)

    def to(self, sample: Sample) -> list[Answer]:
        """The answers to this sample; none if the next one is another's."""
        found: list[Answer] = []
        while self.next and self.next.sample_id == sample.id:
            found.append(self.next)
            self.next = next(self._answers, None)
        return found


def make_pairs(
    groups: Callable[[], Iterator[Candidates]],
    filters: Sequence[Filter],
    seed: int,
    newlines: Newlines = "keep",
    hardest: bool = False,
) -> Iterator[PairingResult]:
    """One pair per sample of which ``no_pair`` and the filters leave at least one negative answer,
    else a drop; where there was none from the start (a source may have no text for it), for
    ``NO_ANSWER``.
    ``groups`` reads them anew at each call: once here, and once for each filter that must have seen
    all before it judges. ``hardest``: of what is left, and is not the chosen answer itself, the
    likeliest with the clean picture is rejected alone."""
    judges: list[PairRule] = [lambda one: no_pair(one.chosen, one.rejected)]
    for filter in filters:
        judges.append(filter.rule_for(partial(_left, groups, tuple(judges)), seed))
    if hardest:
        judges.append(lambda one: EqualFilter().judge(one.chosen, one.rejected))
    for group in groups():
        if group.drop:
            yield PairingResult(group.drop, ())
            continue
        judged = [(one, _removal(one, judges)) for one in group.candidates]
        kept = [one for one, why in judged if not why]
        if hardest and kept:
            judged, kept = _without_easier(judged)
        removed = tuple((one.view, why) for one, why in judged if why)
        result = _pair(group.sample, kept, newlines) if kept else _drop(group.sample, removed)
        yield PairingResult(result, removed)


def _without_easier(
    judged: Sequence[tuple[Candidate, Removal | None]],
) -> tuple[list[tuple[Candidate, Removal | None]], list[Candidate]]:
    """Of the candidates that are left the hardest one, the others removed. Of equal ones the first
    counts, and one that could not be looked at counts least."""

    def likelihood(one: Candidate) -> float:
        return -inf if one.likelihood is None else one.likelihood

    best = max((one for one, why in judged if not why), key=likelihood)
    found = [
        (one, why or (None if one is best else Removal(EASIER, f"than that of {best.view}")))
        for one, why in judged
    ]
    return found, [best]


def _left(
    groups: Callable[[], Iterator[Candidates]], judges: Sequence[PairRule]
) -> Iterator[Candidate]:
    """The candidates that the judges leave."""
    every = (one for group in groups() for one in group.candidates)
    return (one for one in every if _removal(one, judges) is None)


def _removal(one: Candidate, judges: Iterable[PairRule]) -> Removal | None:
    """The first judge's that removes it."""
    return next((why for judge in judges if (why := judge(one))), None)


class Tally:
    """Counts what is made. ``sampled`` = ``kept`` + the sum of ``dropped`` (samples by reason); an
    answer of a view is in ``kept_by_view`` or once in ``removed_by_view``."""

    def __init__(self, views: Iterable[str]) -> None:
        self._dropped: Counter[str] = Counter()
        self._kept = 0
        self._agreement: list[float] = []
        self._kept_by_view = dict.fromkeys(views, 0)
        self._removed_by_view = {view: Counter[str]() for view in self._kept_by_view}

    def add(self, made: PairingResult) -> None:
        """Count one sample."""
        if isinstance(made.result, Drop):
            self._dropped[made.result.reason] += 1
        else:
            self._kept += 1
            if made.result.agreement is not None:
                self._agreement.append(made.result.agreement)
            for view in made.result.views:
                self._kept_by_view[view] += 1
        for view, removal in made.removed:
            self._removed_by_view[view][removal.reason] += 1

    def summary(self) -> Json:
        """The pairs stage's summary."""
        mean = {"agreement": round(fmean(self._agreement), 6)} if self._agreement else {}
        return mean | {
            "sampled": self._kept + self._dropped.total(),
            "kept": self._kept,
            "dropped": dict(self._dropped),
            "kept_by_view": self._kept_by_view,
            "removed_by_view": {v: dict(counts) for v, counts in self._removed_by_view.items()},
        }


def _edited(answer: Answer, newlines: Newlines) -> Answer:
    """With the text that is trained on, and the tokens that were generated."""
    if newlines == "keep":
        return answer
    return replace(answer, text=answer.text.replace("\n", ""))


def _pair(sample: Sample, kept: Sequence[Candidate], newlines: Newlines) -> Pair:
    texts, tokens = [], []
    for answer in (kept[0].chosen, *(one.rejected for one in kept)):
        text = _edited(answer, newlines).text
        texts.append(text)
        tokens.append(answer.tokens if text == answer.text else ())
    return Pair(
        sample_id=sample.id,
        image=sample.image,
        prompt=sample.prompt,
        chosen=texts[0],
        rejected=tuple(texts[1:]),
        views=tuple(one.view for one in kept),
        chosen_tokens=tokens[0],
        rejected_tokens=tuple(tokens[1:]),
        context=kept[0].context,
        context_tokens=kept[0].context_tokens,
        agreement=kept[0].agreement,
    )


def _drop(sample: Sample, removals: Sequence[tuple[str, Removal]]) -> Drop:
    """For the first view's reason; where others were removed for another, the detail tells each."""
    if not removals:
        return Drop(sample.id, NO_ANSWER)
    first = removals[0][1]
    if all(removal == first for _, removal in removals):
        return Drop(sample.id, first.reason, first.detail)
    reasons = (f"{view}: {removal.reason} ({removal.detail})" for view, removal in removals)
    return Drop(sample.id, first.reason, "; ".join(reasons))
