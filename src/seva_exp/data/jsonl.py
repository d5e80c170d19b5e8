"""A file with one JSON object a line: a picture and the question about it."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from seva_exp.data.base import (
    NOT_DRAWN,
    REMOVE_PLACEHOLDER,
    DataSource,
    Hasher,
    SampleSet,
    draw_order,
    hash_or_none,
    placeholder_in,
    printable,
    tally,
)
from seva_exp.data.paths import existing_file, existing_folder
from seva_exp.errors import InputError, suggest
from seva_exp.images import UnusableImage, open_image
from seva_exp.records import Drop, ImageRef, Sample
from seva_exp.spec import Json, digest

DRAW = "data.jsonl.draw"
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    """A well-formed row: ``number`` is its line (1-based), ``image`` relative to the root."""

    number: int
    id: str
    image: str
    question: str

    @property
    def name(self) -> str:
        return row_name(self.number)


class BadRow(ValueError):
    """A row that gives no sample: a reason that can be counted, and what exactly was found.
    ``field`` is the row's key at fault, "" for the row as a whole. All of it can be encoded."""

    def __init__(self, reason: str, detail: str, field: str = "") -> None:
        detail = printable(detail)
        where = f"field '{printable(field)}': " if field else ""
        super().__init__(f"{where}{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.field = field


class JsonlData(DataSource):
    """Rows such as ``{"image": "a.jpg", "question": "What is this?"}``, in the file's order.

    The first bad row ends the run, with its number; with ``on_error: skip`` it becomes a drop.
    Each picture that is used has been decoded once. Blank lines are no rows.
    """

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(min_length=1, description="the file; ~ and relative paths are understood")
    image_folder: str | None = Field(
        None,
        min_length=1,
        description="the folder that the rows' pictures are relative to; null: the file's own",
    )
    image_field: str = Field("image", min_length=1, description="a row's key of the picture's path")
    question_field: str = Field("question", min_length=1, description="a row's key of the question")
    id_field: str | None = Field(
        None, min_length=1, description="a row's key of its unique id; null: row-<line number>"
    )
    samples: int | None = Field(
        None, ge=1, description="number of rows to draw, by the run's seed; null: all of them"
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="what a bad row does: end the run, or be left out and counted"
    )

    @property
    def seeded(self) -> bool:
        return self.samples is not None

    def check(self, where: str = "data") -> None:
        """Looks at the paths and at the first row."""
        existing_file("data.path", self.path)
        if self.image_folder is not None:
            existing_folder("data.image_folder", self.image_folder)
        first = next(self._lines(), None)
        if first is None:
            raise InputError(f"data.path: there is no row in {self.path!r}.")
        try:
            self._row(*first, self._root())
        except BadRow as error:
            self._reject(row_name(first[0]), error)

    def identity(self, sha256: Hasher, where: str = "data") -> Json:
        file, folder = existing_file("data.path", self.path), self.image_root(Path())
        names = sorted({row.image for row in self._good_rows()})
        contents = [[name, hash_or_none(folder / name, sha256)] for name in names]
        fields = self.model_dump(mode="json", exclude={"path", "image_folder"})
        return fields | {"rows": sha256(file), "images": len(names), "contents": digest(contents)}

    def image_root(self, root: Path) -> Path:
        return Path(self._root())

    def _root(self) -> str:
        file = Path(self.path).expanduser()
        folder = file.parent if self.image_folder is None else Path(self.image_folder).expanduser()
        return os.path.abspath(folder)

    def build(self, seed: int, root: Path, sha256: Hasher, where: str = "data") -> SampleSet:
        existing_file("data.path", self.path)
        rows, drops = self._read()
        pictures = Pictures(self.image_root(root), self.image_field, sha256)
        wanted = len(rows) if self.samples is None else self.samples
        found: dict[str, Sample] = {}
        for name in draw_order(rows, seed, DRAW) if wanted < len(rows) else rows:
            row = rows[name]
            if len(found) == wanted:
                drops[name] = Drop(name, NOT_DRAWN)
                continue
            try:
                found[name] = Sample(row.id, pictures.ref(row.image), row.question)
            except BadRow as error:
                drops[name] = self._reject(name, error)
        if not found:
            why = f"{len(drops)} rows: {tally(drops.values())}" if drops else "no row"
            raise InputError(f"data.path: there is no usable row in {self.path!r} ({why}).")
        samples = [found[name] for name in rows if name in found]
        return SampleSet(samples, [drops[name] for name in sorted(drops, key=_number)])

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """(line number, content) of the lines that are not blank."""
        with Path(self.path).expanduser().open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix(BOM) if number == 1 else line
                if text.strip():
                    yield number, text

    def _read(self) -> tuple[dict[str, Row], dict[str, Drop]]:
        """The well-formed rows and those that are not, both by row name."""
        rows: dict[str, Row] = {}
        drops: dict[str, Drop] = {}
        owners: dict[str, str] = {}
        root = self._root()
        for number, line in self._lines():
            name = row_name(number)
            try:
                row = self._row(number, line, root)
                if row.id in owners:
                    detail = f"{row.id!r}, as in {owners[row.id]}"
                    raise BadRow("duplicate id", detail, self.id_field or "")
                owners[row.id], rows[name] = name, row
            except BadRow as error:
                drops[name] = self._reject(name, error)
        return rows, drops

    def _good_rows(self) -> Iterator[Row]:
        root = self._root()
        for number, line in self._lines():
            try:
                yield self._row(number, line, root)
            except BadRow:
                continue

    def _row(self, number: int, line: bytes, root: str) -> Row:
        values = _parse(line)
        image = self._image(values, root)
        question = _question(values, self.question_field)
        id = row_name(number) if self.id_field is None else _id(values, self.id_field)
        return Row(number, id, image, question)

    def _image(self, values: Json, root: str) -> str:
        """The picture's posix path relative to ``root``, by its text alone: links may lead out."""
        image = _text(values, self.image_field)
        path = os.path.normpath(os.path.join(root, image))
        prefix = root.rstrip(os.sep) + os.sep
        if not path.startswith(prefix):
            raise BadRow("outside the image folder", repr(image), self.image_field)
        return Path(path.removeprefix(prefix)).as_posix()

    def _reject(self, name: str, error: BadRow) -> Drop:
        if self.on_error == "skip":
            detail = f"{error.field}: {error.detail}" if error.field else error.detail
            return Drop(name, error.reason, printable(detail))
        of_image = error.field == self.image_field
        root = f" Pictures are looked for below {self._root()!r}." if of_image else ""
        raise InputError(
            f"data.path: row {_number(name)} of {self.path!r}: {error}.{root} "
            "Mend the row, or leave such rows out with data.on_error=skip."
        )


class Pictures:
    """The pictures below a folder, each opened and hashed once however many rows name it."""

    def __init__(self, folder: Path, field: str, sha256: Hasher) -> None:
        self.folder = folder
        self.field = field
        self.sha256 = sha256
        self.seen: dict[str, ImageRef | BadRow] = {}

    def ref(self, path: str) -> ImageRef:
        """Raises BadRow if there is no usable picture at ``path``."""
        if path not in self.seen:
            self.seen[path] = self._look(path)
        result = self.seen[path]
        if isinstance(result, BadRow):
            raise result
        return result

    def _look(self, path: str) -> ImageRef | BadRow:
        try:
            open_image(self.folder / path)
        except UnusableImage as error:
            detail = f"{path!r} ({error.detail})" if error.detail else repr(path)
            return BadRow(error.reason, detail, self.field)
        return ImageRef(path, self.sha256(self.folder / path))


def row_name(number: int) -> str:
    """The name of line 12 is row-000012."""
    return f"row-{number:06d}"


def _number(name: str) -> int:
    return int(name.removeprefix("row-"))


def _parse(line: bytes) -> Json:
    try:
        values = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadRow("not JSON", str(error)) from error
    if not isinstance(values, dict):
        raise BadRow("not a JSON object", f"a {type(values).__name__}")
    return values


def _value(values: Json, field: str) -> object:
    if field not in values:
        hint = suggest(field, values).strip().rstrip(".") or "the row is empty"
        raise BadRow("missing", hint, field)
    return values[field]


def _text(values: Json, field: str) -> str:
    value = _value(values, field)
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{reprlib.repr(value)}, a text is needed", field)
    if not value.strip():
        raise BadRow("empty", repr(value), field)
    if "\0" in value or value.encode("utf-8", "replace").decode() != value:
        raise BadRow("not text", reprlib.repr(value), field)
    return value


def _question(values: Json, field: str) -> str:
    text = _text(values, field)
    if token := placeholder_in(text):
        raise BadRow(f"image placeholder {token}", REMOVE_PLACEHOLDER, field)
    return text


def _id(values: Json, field: str) -> str:
    value = _value(values, field)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else _text(values, field)
