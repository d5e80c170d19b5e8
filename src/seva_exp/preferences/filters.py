"""Filters: which negatives make a pair with the clean answer, and why others do not. A new one adds
its line to the union at the end. No heavy import."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from itertools import groupby
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from seva_exp.core.errors import suggest
from seva_exp.core.interfaces import TOO_LONG
from seva_exp.core.randomness import seed_for
from seva_exp.core.records import Answer
from seva_exp.core.spec import BY_KIND, Json, Spec, by_kind
from seva_exp.core.texts import is_empty, normalised
from seva_exp.preferences.marks import read_marks

Side = Literal["chosen", "rejected", "any"]
ONE_SENTENCE, NOT_REPLACED, SAME_TOKENS = "one_sentence", "not_replaced", "same_tokens"
"""The ``stop`` of a rewritten answer that there is none of, and why a sample is left out: nothing
of the clean answer may be replaced; no replacement came to its end; no token would be another."""


@dataclass(frozen=True)
class Candidate:
    """The clean answer to a sample beside the answer of one negative view. ``tokens`` of an answer
    are those generated, even where its text was changed. Both may go on behind one ``context``.
    ``agreement``: of the answers under weak views, where they were asked."""

    sample_id: str
    view: str
    chosen: Answer
    rejected: Answer
    context: str = ""
    context_tokens: tuple[int, ...] = ()
    agreement: float | None = None
    likelihood: float | None = None
    """Of the rejected answer with the clean picture: log p per token, where it is looked at."""


@dataclass(frozen=True)
class Removal:
    """Why a candidate makes no pair: a stable word, and what was found."""

    reason: str
    detail: str


PairRule = Callable[[Candidate], Removal | None]
"""Says of a candidate why it is removed, or None."""
Candidates = Callable[[], Iterator[Candidate]]
"""Reads candidates anew at each call, those of one sample next to each other."""


class Filter(Spec):
    """Says of every candidate why it is removed, or None. Filters run in the list's order, each on
    what those before it left."""

    kind: str
    seeded: ClassVar[bool] = False
    """Whether the run's seed changes what is removed."""

    def check(self, where: str) -> None:
        """Raises InputError, which begins with ``where``, for what it reads from elsewhere and
        cannot; quick."""

    def identity(self, sha256: Callable[[Path], str]) -> Json:
        """All that decides what it removes beside the seed: never a path of this machine."""
        return self.to_json()

    @abstractmethod
    def rule_for(self, candidates: Candidates, seed: int) -> PairRule:
        """The pair rule for ``candidates``, which the filters before have left. A filter that
        must have seen all of them before it can judge reads them here, and keeps few."""


class EachFilter(Filter):
    """A filter that looks at one candidate at a time."""

    def rule_for(self, candidates: Candidates, seed: int) -> PairRule:
        return lambda one: self.judge(one.chosen, one.rejected)

    @abstractmethod
    def judge(self, chosen: Answer, rejected: Answer) -> Removal | None:
        """Why this rejected answer makes no pair with the clean one, or None."""


class EqualFilter(EachFilter):
    """Removes a negative whose text is exactly the clean one's (SeVa 1.2; the only filter of its
    released code)."""

    kind: Literal["equal"] = "equal"

    def judge(self, chosen: Answer, rejected: Answer) -> Removal | None:
        return Removal("equal", chosen.text) if chosen.text == rejected.text else None


class EqualNormalisedFilter(EachFilter):
    """Removes a negative that is the clean answer but for case, punctuation, blanks and the
    articles a, an, the."""

    kind: Literal["equal_normalised"] = "equal_normalised"

    def judge(self, chosen: Answer, rejected: Answer) -> Removal | None:
        if normalised(chosen.text) != normalised(rejected.text):
            return None
        return Removal("equal_normalised", f"{chosen.text!r} and {rejected.text!r}")


class SimilarityFilter(EachFilter):
    """Removes a negative that is too far from the clean answer or too near to it, by rapidfuzz's
    ratio: 100 for equal texts, 0 for texts without a common character (insertions and deletions of
    characters, relative to both lengths)."""

    kind: Literal["similarity"] = "similarity"
    min: float | None = Field(None, ge=0, le=100)
    """Smallest ratio that is kept; below it the reason is ``too_different``."""
    max: float | None = Field(None, ge=0, le=100)
    """Largest ratio that is kept; above it the reason is ``too_similar``."""

    @model_validator(mode="after")
    def _some_bound(self) -> SimilarityFilter:
        if self.min is None and self.max is None:
            raise ValueError("similarity: without min and max it removes nothing; set one of them.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"similarity: min={self.min} is above max={self.max}.")
        return self

    def judge(self, chosen: Answer, rejected: Answer) -> Removal | None:
        from rapidfuzz import fuzz

        ratio = fuzz.ratio(chosen.text, rejected.text)
        if self.min is not None and ratio < self.min:
            return Removal("too_different", f"ratio {ratio:.1f} < {self.min:g}")
        if self.max is not None and ratio > self.max:
            return Removal("too_similar", f"ratio {ratio:.1f} > {self.max:g}")
        return None


class LengthRatioFilter(EachFilter):
    """Removes a negative where the longer of the two answers is more than ``max`` times as long as
    the shorter one: such pairs teach length."""

    kind: Literal["length_ratio"] = "length_ratio"
    max: float = Field(ge=1)
    """Largest ratio that is kept, the longer over the shorter."""
    unit: Literal["words", "tokens"] = "words"
    """What is counted; tokens are those generated, end-of-sequence included."""

    def judge(self, chosen: Answer, rejected: Answer) -> Removal | None:
        first, second = (self._length(answer) for answer in (chosen, rejected))
        if max(first, second) <= self.max * min(first, second):
            return None
        return Removal("length_ratio", f"chosen {first} {self.unit}, rejected {second}")

    def _length(self, answer: Answer) -> int:
        return len(answer.tokens if self.unit == "tokens" else answer.text.split())


class _SideFilter(EachFilter):
    """Removes a negative where the side ``which`` of the two answers has a fault."""

    which: Side = "any"
    """Whose fault counts: the ``chosen`` answer's, the ``rejected`` one's, or ``any``."""

    @abstractmethod
    def faulty(self, answer: Answer) -> bool:
        """Whether this answer has the fault."""

    def judge(self, chosen: Answer, rejected: Answer) -> Removal | None:
        sides = {"chosen": chosen, "rejected": rejected}
        wanted = sides if self.which == "any" else (self.which,)
        faults = [side for side in wanted if self.faulty(sides[side])]
        return Removal(self.kind, " and ".join(faults)) if faults else None


class UnfinishedFilter(_SideFilter):
    """Removes a negative where an answer was cut at ``generation.max_new_tokens``."""

    kind: Literal["unfinished"] = "unfinished"

    def faulty(self, answer: Answer) -> bool:
        return answer.stop == "length"


class EmptyFilter(_SideFilter):
    """Removes a negative where an answer has no text."""

    kind: Literal["empty"] = "empty"

    def faulty(self, answer: Answer) -> bool:
        return is_empty(answer.text)


class AmbiguousFilter(Filter):
    """Removes a sample of which the model is not sure: its answers under weak views
    (``ambiguity``) agree too little. The agreement is the mean of the score ``agreement`` over
    these answers (self-consistency, arXiv:2203.11171)."""

    kind: Literal["ambiguous"] = "ambiguous"
    min: float = Field(0.5, gt=0, le=1)
    """Smallest agreement that is kept: 1 where all answers are alike, 0 where no two are."""

    def rule_for(self, candidates: Candidates, seed: int) -> PairRule:
        def judge(one: Candidate) -> Removal | None:
            if one.agreement is None or one.agreement >= self.min:  # of a run that is not done
                return None
            return Removal(self.kind, f"agreement {one.agreement:.4g} < {self.min:g}")

        return judge


def no_pair(chosen: Answer, rejected: Answer) -> Removal | None:
    """What no choice of filters keeps: an answer that the model's context had no room for, and a
    chosen answer of nothing, which would be learnt; an answer that could not be rewritten. It is in
    no key: answers of which it removes none make the same pairs with it and without."""
    sides = {"chosen": chosen, "rejected": rejected}
    if long := [side for side, answer in sides.items() if answer.stop == TOO_LONG]:
        return Removal(TOO_LONG, " and ".join(long))
    if is_empty(chosen.text):
        return Removal("empty", "chosen")
    unmade = rejected.stop in (ONE_SENTENCE, NOT_REPLACED, SAME_TOKENS)
    return Removal(rejected.stop, chosen.text) if unmade else None


class DownSampleFilter(Filter):
    """Keeps ``count`` samples, drawn by the run's seed, with all their negatives that are left.
    Each sample has a rank of its own: where one is missing, another comes in and no other moves.
    SeVa's step-800 set is 4,300 of OCR-VQA and 6,500 of TextVQA: two such filters, each with its
    prefix."""

    kind: Literal["down_sample"] = "down_sample"
    seeded: ClassVar[bool] = True
    count: int = Field(ge=1)
    """Samples that are kept; where fewer are left, all of them."""
    prefix: str = ""
    """Only samples whose id begins so are counted and removed, e.g. ``ocr_vqa/``; empty: all."""

    def rule_for(self, candidates: Candidates, seed: int) -> PairRule:
        def place(id: str) -> tuple[int, str]:
            return seed_for(seed, "down_sample", id), id

        total = 0

        def places() -> Iterator[tuple[int, str]]:
            nonlocal total
            for id, _ in groupby(one.sample_id for one in candidates()):
                if id.startswith(self.prefix):
                    total += 1
                    yield place(id)

        kept = nsmallest(self.count, places())
        of = f" {self.prefix}" if self.prefix else ""
        removal = Removal("down_sample", f"not among {self.count} of {total}{of}")

        def judge(one: Candidate) -> Removal | None:
            id = one.sample_id
            return removal if id.startswith(self.prefix) and place(id) > kept[-1] else None

        return judge


class MarkedFilter(Filter):
    """Removes what a person has marked ``drop``, in a file as the page of a run's pairs makes it
    (``python -m seva_exp.runs pairs RUN --page``): rows such as ``{"sample_id": "a.jpg", "view":
    "moco", "mark": "drop"}``; a row without ``view`` is of all the sample's negatives."""

    kind: Literal["marked"] = "marked"
    path: str = Field(min_length=1)
    """The file of marks, one JSON object a line."""
    unmarked: Literal["keep", "drop"] = "keep"
    """What becomes of a negative that has no mark."""

    def check(self, where: str) -> None:
        read_marks(self.path, f"{where}.path")

    def identity(self, sha256: Callable[[Path], str]) -> Json:
        marks = sha256(Path(self.path).expanduser())
        return {"kind": self.kind, "unmarked": self.unmarked, "marks": marks}

    def rule_for(self, candidates: Candidates, seed: int) -> PairRule:
        marks = read_marks(self.path, "filters: kind=marked")

        def judge(one: Candidate) -> Removal | None:
            of_all = marks.get((one.sample_id, ""), self.unmarked)
            mark = marks.get((one.sample_id, one.view), of_all)
            return Removal(self.kind, f"{one.view}: {mark}") if mark == "drop" else None

        return judge


_Union = (
    AmbiguousFilter
    | DownSampleFilter
    | EmptyFilter
    | EqualFilter
    | EqualNormalisedFilter
    | LengthRatioFilter
    | MarkedFilter
    | SimilarityFilter
    | UnfinishedFilter
)

FILTERS: dict[str, type[Filter]] = by_kind(_Union)
"""kind -> class."""


def named_filter(value: object) -> object:
    """A bare name stands for that kind with its defaults: ``equal`` is ``{kind: equal}``. Raises
    ValueError with the nearest name for an unknown kind or field."""
    if isinstance(value, str):
        value = {"kind": value}
    if isinstance(value, dict):
        kind = str(value.get("kind"))
        if kind not in FILTERS:
            raise ValueError(f"kind={kind}: no such filter.{suggest(kind, FILTERS)}")
        fields = FILTERS[kind].model_fields
        for name in value:
            if name not in fields:
                raise ValueError(f"{kind}.{name}: no such field.{suggest(str(name), fields)}")
    return value


AnyFilter = Annotated[Annotated[_Union, BY_KIND], BeforeValidator(named_filter)]
"""The field type of a config that holds a filter, or its bare name."""
