"""JSON files as rows: one object a line, or one list of objects, which is read in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from seva_exp.core.errors import InputError
from seva_exp.inputs.foreign import refuse_foreign

BOM = b"\xef\xbb\xbf"
PIECE = 1 << 20
"""Characters that are read at once."""
MAX_ROW = 1 << 26
"""Characters of the longest row: without a bound a fault near the start of a large file would be
noticed only after all of it lies in memory."""
SPACE = " \t\r\n"


def rows(path: Path, field: str) -> Iterator[tuple[int, object]]:
    """(number from 1, content) of each row: the values of a JSON list, else lines as they are."""
    yield from elements(path, field) if is_list(path, field) else lines(path, field)


def lines(path: Path, field: str) -> Iterator[tuple[int, bytes]]:
    """(line number, content) of the lines that are not blank; without a byte order mark. A line
    ends at ``\\n``: U+2028 and U+0085 are text. Raises InputError, which names ``field``, for what
    is no text file, or has a line without an end."""
    refuse_foreign(path, field)
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_ROW + 1):
            number += 1
            if len(line) > MAX_ROW:
                raise InputError(
                    f"{field}: {str(path)!r}: line {number} has no end within {MAX_ROW} bytes. "
                    "Write one row a line."
                )
            text = line.removeprefix(BOM) if number == 1 else line
            if text.strip():
                yield number, text


def is_list(path: Path, field: str) -> bool:
    """Whether the file begins as a JSON list does; ``field`` as in ``lines``."""
    refuse_foreign(path, field)
    with path.open("rb") as file:
        return file.read(4096).removeprefix(BOM).lstrip().startswith(b"[")


def elements(path: Path, field: str) -> Iterator[tuple[int, object]]:
    """(number from 1, value) of each element of a JSON list; only one piece of the file is held.

    Bytes that are no UTF-8 become halves of surrogate pairs, so that they are the fault of a row.
    Raises InputError, which names ``field``, for what is no list, or not all of one.
    """
    refuse_foreign(path, field)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        pieces = _Pieces(file)
        if not pieces.next():
            raise InputError(f"{field}: {str(path)!r} is empty.")
        if pieces.next() != "[":
            raise InputError(f"{field}: {str(path)!r} is not a JSON list ([...]).")
        pieces.at += 1
        number = 0
        try:
            while number == 0 or pieces.separator() == ",":
                if number == 0 and pieces.next() == "]":
                    pieces.at += 1
                    break
                number += 1
                yield number, pieces.value()
            if pieces.next():
                raise ValueError("something follows the list's end")
        except (ValueError, RecursionError) as error:
            message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(
                f"{field}: {str(path)!r} is cut off or no valid JSON at row {number}: {message}. "
                "Get the file again."
            ) from error


class _Pieces:
    """A text of which only the part from ``at`` on is needed, read as far as asked."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.text = ""
        self.at = 0
        self.decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is no space, which stays; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self._more():
                return ""

    def separator(self) -> str:
        """The comma or bracket behind an element."""
        found = self.next()
        if found not in (",", "]"):
            raise ValueError("',' or ']' is missing")
        self.at += 1
        return found

    def value(self) -> object:
        """The JSON value here. One that ends with what was read may go on in the next piece."""
        self.next()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if end < len(self.text) or not self._more():
                self.at = end
                return value

    def _more(self) -> bool:
        rest = self.text[self.at :]
        if len(rest) > MAX_ROW:
            raise ValueError(f"no end within {MAX_ROW} characters")
        piece = self.file.read(max(PIECE, len(rest)))
        self.text, self.at = rest + piece, 0
        return bool(piece)
