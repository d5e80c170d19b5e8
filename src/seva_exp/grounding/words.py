"""The words of a text, and which of its tokens each is made of. No heavy import."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seva_exp.core.texts import REPLACEMENT

Decode = Callable[[Sequence[int]], str]
"""Tokens to their text, without outer blanks."""
_ALONE = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
"""Characters of scripts without blanks."""
_LETTERS = rf"(?:(?!{_ALONE})\w)+"
_WORD = re.compile(rf"{_ALONE}|{_LETTERS}(?:['\u2019.,-]{_LETTERS})*|[^\w\s]")


@dataclass(frozen=True)
class Span:
    """A word, or a mark of punctuation: ``text`` from ``start`` to ``end`` of its answer;
    ``tokens`` are the numbers of those that it is made of."""

    text: str
    start: int
    end: int
    tokens: tuple[int, ...] = ()


def words_of(text: str) -> list[Span]:
    """The words of a text and its marks of punctuation, in order: letters and digits with what
    joins them (``don't``, ``1.5``); of Chinese, Japanese and Korean each character."""
    return [Span(found.group(), found.start(), found.end()) for found in _WORD.finditer(text)]


def token_ends(text: str, tokens: Sequence[int], decode: Decode) -> list[int]:
    """Where in ``text`` each token's own characters end. Half a character, which more tokens
    complete, ends where that one begins."""
    ends, reached = [], 0
    for count in range(1, len(tokens) + 1):
        said = decode(tokens[:count]).rstrip(REPLACEMENT)
        reached = max(reached, min(len(said), len(text)))
        ends.append(reached)
    return ends


def spans_of(text: str, tokens: Sequence[int], decode: Decode) -> list[Span]:
    """The words of an answer with the tokens that each is made of: those that have most of their
    characters in it; one without any (a lone blank, half a character) belongs to the next. Words
    without a token of their own are left out: none could be told of them."""
    words, ends = words_of(text), token_ends(text, tokens, decode)
    found: list[list[int]] = [[] for _ in words]
    waiting: list[int] = []
    start = 0
    for number, end in enumerate(ends):
        shared = [max(0, min(end, word.end) - max(start, word.start)) for word in words]
        start = end
        if not any(shared):
            waiting.append(number)
            continue
        found[shared.index(max(shared))] += [*waiting, number]
        waiting = []
    return [
        Span(word.text, word.start, word.end, tuple(own))
        for word, own in zip(words, found, strict=True)
        if own
    ]
