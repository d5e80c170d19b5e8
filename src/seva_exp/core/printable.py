"""Text of data as a person may be shown it: nothing in it steers a terminal, turns the writing
around or passes for a line of ours."""

from __future__ import annotations

import re
import sys

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


def ends(text: str, longest: int = LONGEST) -> str:
    """``text``, or both its ends and its length where it has more than ``longest`` characters."""
    if len(text) <= longest:
        return text
    return f"{text[: longest * 2 // 5]}…({len(text):,} characters)…{text[-longest // 10 :]}"


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


def tell(message: str) -> None:
    """A message of ours on standard error."""
    print(printable(f"seva_exp: {indented(message)}"), file=sys.stderr, flush=True)
