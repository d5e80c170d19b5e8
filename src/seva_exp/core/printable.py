"""Text of data as a person may be shown it: nothing in it steers a terminal, turns the writing
around or passes for a line of ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from itertools import zip_longest

LONGEST = 200
"""Characters of a word in a message; of a longer one (a picture in base64) both ends are told."""

_SHOWN = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "␡",
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},
    **{code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))},
    **{code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)},
    **{0xDC00 + code: f"\\x{code:02x}" for code in range(0x80, 0x100)},  # a byte of a file's name
}
_HIDDEN = re.compile(f"[{''.join(map(chr, _SHOWN))}]")
_WORD = re.compile(rf"\S{{{LONGEST + 1},}}")


def printable(text: str) -> str:
    """``text`` with what is not written but obeyed shown as symbols (``␛``) or escapes: control
    characters but line ends and tabs, overrides and isolates of the writing direction, halves of
    surrogate pairs (bytes of a file's name that are no UTF-8)."""
    return text.translate(_SHOWN) if _HIDDEN.search(text) else text


def one_line(text: str) -> str:
    """As ``printable``, with line ends shown, too, and long words cut: for a name or a row's text
    within a line of ours."""
    return printable(cut(text)).replace("\n", "␊").replace("\t", "␉")


_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|\.\d+)([eE][+-]?\d+)?%?")


def as_cell(value: object) -> object:
    """A table's cell that no spreadsheet takes for a formula: a text that begins like one has an
    apostrophe before it. Numbers stay what they are."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def cut(text: str) -> str:
    """``text`` with each word of more than ``LONGEST`` characters cut in its middle."""
    return _WORD.sub(lambda found: ends(found[0]), text) if len(text) > LONGEST else text


_LAST_WORD = re.compile(r"\s\S{0,30}\Z")
_FIRST_WORD = re.compile(r"\A\S{0,30}\s")


def ends(text: str, longest: int = LONGEST) -> str:
    """``text``, or both its ends and its length where it has more than ``longest`` characters; no
    word is cut but one that is long itself."""
    if len(text) <= longest:
        return text
    head, tail = text[: longest * 2 // 5], text[-longest // 10 :]
    if text[len(head)] != " ":
        head = _LAST_WORD.sub("", head)
    if text[-len(tail) - 1] != " ":
        tail = _FIRST_WORD.sub("", tail)
    return f"{head}…({len(text):,} characters)…{tail}"


def flat(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line that can be printed, without its full stop, cut as by ``ends``."""
    return ends(one_line(" ".join(text.split()).rstrip(" .")), longest)


LONGEST_ERROR = 500
"""Characters of an error in a message."""


def error_text(error: BaseException, *, kind: bool = False, first_line: bool = False) -> str:
    """What an error says, as ``flat`` shows it, for a line of ours: with its type before it
    (``kind``), or of several lines the first alone. The type's name where it says nothing."""
    text = str(error).strip()
    said = flat(text.split("\n", 1)[0] if first_line else text, LONGEST_ERROR)
    name = type(error).__name__
    return f"{name}: {said}" if kind and said else said or name


def indented(text: str) -> str:
    """A text of several lines, long words cut, whose further lines stand to the right: none of them
    passes for a line of ours."""
    return cut(text).replace("\n", "\n  ")


COLUMNS = 80
"""Characters of a line of ours, where nothing longer is in it."""
_MANY = re.compile(r" Known: ((?:[^\s,]+, ){11,}[^\s,]+)\.(?=\s|$) ?")


def columns(names: Sequence[str], width: int = COLUMNS - 4) -> list[str]:
    """Lines of at most ``width`` characters with the names in columns, to be read line by line."""
    for count in range(len(names), 0, -1):
        rows = [names[i : i + count] for i in range(0, len(names), count)]
        widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            break
    return [
        "  ".join(map(str.ljust, row, widths[: len(row)])).rstrip()  # the last row may be short
        for row in rows
    ]


def in_columns(message: str) -> str:
    """A message in which each list of a dozen known names or more stands in columns behind its
    line."""
    return "\n".join(map(_in_columns, message.split("\n")))


def _in_columns(line: str) -> str:
    found = _MANY.search(line)
    if not found:
        return line
    said = f"{line[: found.start()]} {line[found.end() :]}".strip()
    return "\n".join([f"{said} Known:", *columns(found[1].split(", "))])


def tell(message: str) -> None:
    """A message of ours on standard error."""
    text = printable(f"seva_exp: {indented(in_columns(message))}")
    print(text, file=sys.stderr, flush=True)
