"""Texts that a model wrote: which are none, and what in them is no text."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Literal

ARTICLES = frozenset({"a", "an", "the"})
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_CLAUSE = re.compile(r"(?<=[.!?])\s+|\n+|[,;]\s+(?:and\s+)?|\s+and\s+")
_LEAD = re.compile(r"[,;]?\s*(?:and\s+)?")
_ENDS = " .!?\n"
Split = Literal["sentences", "clauses"]
"""What an answer is taken apart into; a clause is a part of a sentence between commas and "and"."""
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


def pieces(text: str, split: Split) -> list[str]:
    """An answer's sentences, or clauses, each with what stands before it (a blank, a comma, "and"),
    so that joined they are the text. What has no word of its own belongs to the piece before."""
    found: list[str] = []
    cut = _SENTENCE if split == "sentences" else _CLAUSE
    bounds = [0, *(match.start() for match in cut.finditer(text)), len(text)]
    for start, end in pairwise(bounds):
        part = text[start:end]
        if found and not re.search(r"\w", part):
            found[-1] += part
        elif part:
            found.append(part)
    return found


def bare(piece: str, split: Split) -> str:
    """A piece without what stands before it."""
    piece = piece.strip()
    return piece if split == "sentences" else piece[_LEAD.match(piece).end() :]  # type: ignore[union-attr]


def in_place_of(old: str, new: str, split: Split) -> str:
    """A new piece where an old one was: a clause keeps what stood before and behind the old one (a
    comma, "and", the full stop)."""
    if split == "sentences":
        return new
    inner = bare(old, split)
    ends = old[len(old.rstrip(_ENDS)) :]
    return old[: old.rindex(inner)] + bare(new, split).rstrip(_ENDS) + ends
