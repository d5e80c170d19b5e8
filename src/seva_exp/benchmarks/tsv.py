"""VLMEvalKit's tables: tab-separated, fields with line breaks in quotes, pictures as base64.

The tables are up to gigabytes of base64, so the file is scanned through a memory map and a picture
is kept as the place where its text stands.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL.Image import Image

from seva_exp.core.errors import InputError, StageError
from seva_exp.inputs.foreign import foreign
from seva_exp.inputs.images import BEGINNINGS, UnusableImage, read_image
from seva_exp.inputs.json_rows import BOM

QUOTE, TAB, LINE = b'"', b"\t", b"\n"
REFERENCE = 64
"""A picture column this short holds the ``index`` of the row whose picture it is, as VLMEvalKit
has it."""
OPENING, CLOSING = (b"[", b"'", b'"', b" "), (b"]", b"'", b'"', b" ")
Span = tuple[int, int]
"""Where a field's text begins and ends, quotes left out, in bytes."""


@dataclass(frozen=True)
class TablePicture:
    """A picture that stands in a table as base64, from byte ``start`` to ``end``. ``sha256`` is
    that of its text: rows with equal pictures share it. ``place`` is its row, for a person."""

    file: Path
    start: int
    end: int
    sha256: str
    place: str = field(default="", compare=False)

    def load(self) -> Image:
        """The decoded picture. Raises StageError where there is none."""
        try:
            with self.file.open("rb") as file:
                file.seek(self.start)
                content = base64.b64decode(file.read(self.end - self.start), validate=False)
            return read_image(BytesIO(content))
        except (OSError, binascii.Error, UnusableImage) as error:
            raise StageError(
                f"{self.file}: {self.place}: the picture at byte {self.start} cannot be read: "
                f"{error}. Get the file again."
            ) from error


@dataclass(frozen=True)
class TableRow:
    """``number`` counts the rows behind the header from 1, ``line`` the file's lines."""

    number: int
    line: int
    values: dict[str, str]
    picture: TablePicture | None


def read_table(path: Path, picture: str = "image") -> Iterator[TableRow]:
    """The rows, an empty field as "". Raises InputError for what is no such table, or not all of
    one, naming the row."""
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty.")
    if problem := foreign(path, "the table"):
        raise InputError(f"{path}: {problem}.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        records = _records(text, path)
        _, header = next(records, (0, []))
        if not header:
            raise InputError(f"{path}: is empty.")
        names = [_decoded(text, span, path, "the header") for span in header]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"{path}: two columns are called {sorted(twice)[0]!r}.")
        for number, (line, spans) in enumerate(records, 1):
            if len(spans) != len(names):
                raise InputError(
                    f"{path}: row {number} (line {line}) has {len(spans)} columns, the header has "
                    f"{len(names)}. The file is cut off or damaged: get it again."
                )
            fields = dict(zip(names, spans, strict=True))
            place = f"row {number} (line {line})"
            found = fields.get(picture)
            held = None
            if found and found[1] - found[0] > REFERENCE:
                del fields[picture]
                held = held_picture(text, found, path, place)
                if found[1] == len(text):
                    _whole(held)
            values = {name: _decoded(text, span, path, place) for name, span in fields.items()}
            yield TableRow(number, line, values, held)


def held_picture(text: mmap.mmap, span: Span, path: Path, place: str) -> TablePicture:
    """The picture of a cell (or of another text in a file) in base64, or the only one of a list of
    such. Raises InputError where it is none."""
    sha256 = hashlib.sha256(text[slice(*span)]).hexdigest()
    start, end = span
    if text[start : start + 1] == b"[":
        if count := text[start:end].count(b","):
            raise InputError(
                f"{path}: {place}: column 'image' holds {count + 1} pictures; one is needed."
            )
        while text[start : start + 1] in OPENING:
            start += 1
        while text[end - 1 : end] in CLOSING:
            end -= 1
    if text[start : start + 5] == b"data:":
        start = text.find(b",", start, end) + 1
    if not _begins_a_picture(text[start : min(start + REFERENCE, end)]):
        raise InputError(
            f"{path}: {place}: column 'image' holds no picture as base64 (it begins with "
            f"{text[start : start + 12]!r}). Mend the row or get the file again."
        )
    return TablePicture(path, start, end, sha256, place)


def _begins_a_picture(text: bytes) -> bool:
    letters = text.translate(None, b" \t\r\n\\")  # JSON may write \/ for /
    try:
        return base64.b64decode(letters[: len(letters) // 4 * 4]).startswith(BEGINNINGS)
    except binascii.Error:
        return False


def _whole(last: TablePicture) -> None:
    """A picture that ends with the file, without a line break behind it, may be cut off."""
    try:
        last.load()
    except StageError as error:
        raise InputError(
            f"{last.file}: {last.place}: its picture cannot be read. The file is cut off or "
            "damaged: get it again."
        ) from error


def _records(text: mmap.mmap, path: Path) -> Iterator[tuple[int, list[Span]]]:
    """(line, fields) of each record, the header first."""
    at = len(BOM) if text[: len(BOM)] == BOM else 0
    line, end = 1, len(text)
    while at < end:
        start, spans, stop = line, [], -1
        while True:
            if text[at : at + 1] == QUOTE:
                close = _closing(text, at + 1)
                if close < 0:
                    raise InputError(
                        f"{path}: line {start}: a quoted field has no end. The file is cut off: "
                        "get it again."
                    )
                spans.append((at + 1, close))
                line += text[at:close].count(LINE)
                at = close + 1
            else:
                if stop < at:
                    stop = text.find(LINE, at)
                    stop = end if stop < 0 else stop
                tab = text.find(TAB, at, stop)
                close = stop if tab < 0 else tab
                spans.append((at, close - (tab < 0 and text[close - 1 : close] == b"\r")))
                at = close
            if text[at : at + 1] != TAB:
                break
            at += 1
        at = text.find(LINE, at) + 1 or end
        line += 1
        if spans != [(spans[0][0], spans[0][0])]:  # a blank line is no record
            yield start, spans


def _closing(text: mmap.mmap, at: int) -> int:
    """The quote that ends a field; two in a row stand for one in it. -1: there is none."""
    while (found := text.find(QUOTE, at)) >= 0 and text[found + 1 : found + 2] == QUOTE:
        at = found + 2
    return found


def _decoded(text: mmap.mmap, span: Span, path: Path, place: str) -> str:
    try:
        return text[slice(*span)].decode("utf-8").replace('""', '"')
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {place}: is not UTF-8 ({error.reason}).") from error
