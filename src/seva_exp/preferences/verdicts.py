"""What several judges say of one sentence, and where an answer first goes wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from seva_exp.preferences.filters import Removal

NOTHING_WRONG, UNCERTAIN, ALL_WRONG = "nothing_wrong", "uncertain", "no_right_sentence"
"""Why a sample makes no pair: nobody finds a mistake; the first that someone finds is not found by
all; nothing that the model says there is right to all."""
SPLIT_TOKEN, NO_ROOM = "split_token", "no_sentence"
"""And before it is asked: a sentence ends within a token; it has no sentence."""
Values = Sequence[float | None]
"""What each judge says of a sentence: 0 or more: nothing is wrong; below 0: something is; None:
there is nothing to say."""


def is_wrong(values: Values) -> bool:
    """Whether all find a mistake."""
    return all(value is not None and value < 0 for value in values)


def is_right(values: Values) -> bool:
    """Whether all have something to say, and nobody finds a mistake."""
    return all(value is not None and value >= 0 for value in values)


def is_accused(values: Values) -> bool:
    """Whether somebody finds a mistake."""
    return any(value is not None and value < 0 for value in values)


def first_wrong(sentences: Sequence[Values]) -> int | Removal:
    """The place of the first sentence that is wrong, where nobody finds a mistake before it; or why
    there is none (SENTINEL, arXiv:2507.12455: the context of a pair is free of hallucinations, and
    sentences on which its detectors differ are left out)."""
    if not sentences:
        return Removal(NO_ROOM, "the answer has none")
    for place, values in enumerate(sentences):
        if is_wrong(values):
            return place
        if is_accused(values):
            return Removal(UNCERTAIN, f"sentence {place + 1} of {len(sentences)}")
    return Removal(NOTHING_WRONG, f"{len(sentences)} sentences")


def best_right(texts: Sequence[str], verdicts: Sequence[Values], wrong: str) -> int | Removal:
    """The place of the sentence that is right, and another than the wrong one: of several the one
    that was sampled most often, and first."""
    right = [n for n, of in enumerate(verdicts) if is_right(of) and texts[n] != wrong]
    if not right:
        return Removal(ALL_WRONG, f"none of {len(texts)} sampled sentences")
    counts = Counter(texts)
    return max(right, key=lambda n: (counts[texts[n]], -n))
