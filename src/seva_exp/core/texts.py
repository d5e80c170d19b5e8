"""Texts that a model wrote: which are none, and what in them is no text."""

from __future__ import annotations

import unicodedata

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
