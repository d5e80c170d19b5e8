"""Texts that a model wrote: which are none, and what in them is no text."""

from __future__ import annotations

import re
import unicodedata

ARTICLES = frozenset({"a", "an", "the"})
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def is_empty(text: str) -> bool:
    """Whether there is nothing to see: blanks, line ends, characters without width."""
    return all(unicodedata.category(one)[0] in "ZC" for one in text)


def whole_characters(text: str) -> str:
    """Halves of surrogate pairs, which no file can hold, as U+FFFD; whole pairs as the character
    that they stand for."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_repetitive(text: str) -> bool:
    """Whether it goes round in circles: of at least 16 words, and less than half of its runs of
    four are different ones."""
    words = text.split()
    runs = list(zip(*(words[i:] for i in range(4)), strict=False))
    return len(words) >= 16 and 2 * len(set(runs)) < len(runs)


def normalised(text: str) -> str:
    """Case folded, punctuation as blanks, articles out (unless nothing else is there, as in the
    answer "A."), single blanks. So 3.5 is not 35, but -5 is 5."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(" " if unicodedata.category(c).startswith("P") else c for c in folded)
    words = plain.split()
    return " ".join([word for word in words if word not in ARTICLES] or words)


def sentences(text: str) -> list[str]:
    """Cut behind a full stop, an exclamation or question mark that a blank follows, and at line
    breaks."""
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]
