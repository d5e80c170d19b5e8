"""Two answers beside each other on a terminal, words that differ marked."""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest

from seva_exp.core.printable import one_line, printable
from seva_exp.report.console import paint
from seva_exp.side_by_side.asker import BothAnswers, left_out

Word = tuple[str, bool]
"""A word, and whether the other answer lacks it."""
WIDEST = 120
"""Columns of both answers together, at most."""
GAP = "   "


def side_by_side(answers: BothAnswers) -> str:
    """Two columns. Words that only one answer has: red in the base's and green in the aligned one's
    on a terminal that shows colours, else ``[-so-]`` and ``{+so+}`` as git's word-diff does."""
    width = min(shutil.get_terminal_size((80, 24)).columns, WIDEST)
    column = max(16, (width - len(GAP)) // 2)
    base, aligned = different(answers.base, answers.aligned)
    left = [paint("bold", _padded("base", column)), *_lines(base, column, "red", ("[-", "-]"))]
    right = [paint("bold", "aligned"), *_lines(aligned, column, "green", ("{+", "+}"))]
    rows = [
        f"{one or ' ' * column}{GAP}{other}".rstrip()
        for one, other in zip_longest(left, right, fillvalue="")
    ]
    notes = {name: left_out(stop) for name, stop in zip(_MODELS, answers.stops, strict=True)}
    rows += [f"({name}: {note})" for name, note in notes.items() if note]
    if answers.same:
        rows.append("(the same)")
    return "\n".join(rows)


_MODELS = ("base", "aligned")


def different(one: str, other: str) -> tuple[list[Word], list[Word]]:
    """The words of both texts, each with whether the other lacks it there; line ends are words."""
    left, right = _words(one), _words(other)
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    marks = [[True] * len(left), [True] * len(right)]
    for start, begin, size in matcher.get_matching_blocks():
        marks[0][start : start + size] = [False] * size
        marks[1][begin : begin + size] = [False] * size
    return list(zip(left, marks[0], strict=True)), list(zip(right, marks[1], strict=True))


def _words(text: str) -> list[str]:
    return re.findall(r"\n|[^\s]+", printable(text)) or ["(empty)"]


def _lines(words: Sequence[Word], width: int, style: str, marks: tuple[str, str]) -> Iterator[str]:
    """Filled lines of ``width`` columns, padded."""
    coloured = paint(style, "x") != "x"
    around = 0 if coloured else len(marks[0] + marks[1])
    line: list[Word] = []
    used = 0
    for text, differs in _cut(words, width - around):
        size = columns(text) + (around if differs else 0)
        if text == "\n" or (line and used + 1 + size > width):
            yield _line(line, width, style, marks, coloured)
            line, used = [], 0
        if text != "\n":
            used += size + bool(line)
            line.append((text, differs))
    if line:
        yield _line(line, width, style, marks, coloured)


def _cut(words: Sequence[Word], width: int) -> Iterator[Word]:
    """Words that are longer than a line, in parts."""
    for text, differs in words:
        part = ""
        for one in text:
            if part and columns(part + one) > width:
                yield part, differs
                part = ""
            part += one
        yield part, differs


def _line(
    words: Sequence[Word], width: int, style: str, marks: tuple[str, str], coloured: bool
) -> str:
    shown, plain = [], []
    for text, differs in words:
        marked = f"{marks[0]}{text}{marks[1]}"
        plain.append(marked if differs and not coloured else text)
        shown.append((paint(style, text) if coloured else marked) if differs else text)
    blanks = max(0, width - columns(" ".join(plain)))
    return " ".join(shown) + " " * blanks


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - columns(text))


def columns(text: str) -> int:
    """Of a terminal: Chinese and the like take two, accents of their own none."""
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(unicodedata.combining(one) > 0 for one in text)


def heading(name: str) -> str:
    """Over the answers of one picture of several."""
    return paint("dim", one_line(name))


def on_a_terminal() -> bool:
    """Whether a person types and reads."""
    return sys.stdin.isatty() and sys.stdout.isatty()
