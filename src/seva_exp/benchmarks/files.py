"""The official files below the data root: found, read row by row, refused by file and row."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from PIL.Image import Image

from seva_exp.benchmarks.tsv import TablePicture, read_table
from seva_exp.core.errors import InputError, StageError, suggest
from seva_exp.core.printable import ends, one_line
from seva_exp.core.spec import Json
from seva_exp.inputs.fields import (
    BadRow,
    as_text,
    object_of,
    only,
    parsed,
    picture_path,
    value_of,
)
from seva_exp.inputs.foreign import foreign, refuse_foreign
from seva_exp.inputs.images import IMAGE_SUFFIXES, UnusableImage, open_image
from seva_exp.inputs.json_rows import elements, is_list, lines
from seva_exp.inputs.user_paths import inside

Read = TypeVar("Read")
Candidates = Sequence[str]
"""Where a file or folder may lie below the data root; the first is where it is told to go."""
Stamps = dict[Path, tuple[int, int] | None]


@dataclass(frozen=True)
class FilePicture:
    """A picture file; ``name`` is relative to its folder."""

    path: Path
    name: str

    def load(self) -> Image:
        """The decoded picture. Raises StageError where there is none."""
        try:
            return open_image(self.path)
        except UnusableImage as error:
            raise StageError(f"{self.path}: no picture can be made of it: {error}.") from error


Picture = FilePicture | TablePicture


@dataclass(frozen=True)
class FileRow:
    """One row of a file. Whatever is wrong with it is refused with the file's name and ``place``
    (such as "line 7")."""

    file: Path
    place: str
    values: Json
    held: TablePicture | None = None
    """The picture that a table's row holds itself."""

    @property
    def shown(self) -> TablePicture:
        """The picture of a table's row."""
        if self.held is None:
            self.refuse("missing picture: column 'image' is empty")
        return self.held

    def refuse(self, problem: str) -> NoReturn:
        """Ends the run."""
        problem = ends(one_line(problem))
        raise InputError(
            f"{self.file}: {self.place}: {problem}. Mend the row or get the file again."
        )

    def value(self, field: str) -> Any:
        """The row's value of ``field``."""
        try:
            return value_of(self.values, field)
        except BadRow as error:
            self.refuse(str(error))

    def text(self, field: str) -> str:
        """The text under ``field``, not blank; a number as text."""
        value = self.value(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        try:
            return as_text(value, field)
        except BadRow as error:
            self.refuse(str(error))

    def picture(self, field: str) -> str:
        """The name of a picture's file under ``field``, or the only one of a list."""
        try:
            value = only(self.value(field), field)
            return str(value) if type(value) is int else picture_path(value, field)
        except BadRow as error:
            self.refuse(str(error))

    def maybe(self, field: str) -> str:
        """The text under ``field``; "" where there is none (pandas writes ``nan``)."""
        value = self.values.get(field)
        text = "" if value is None else str(value).strip()
        return "" if text.lower() in ("nan", "none") else text

    def texts(self, field: str) -> tuple[str, ...]:
        """The list of texts under ``field``; in a table it is written out."""
        value = self.value(field)
        if isinstance(value, str):
            value = _written_list(value)
        if not isinstance(value, list) or not all(isinstance(x, str | int | float) for x in value):
            self.refuse(f"field '{field}': wrong type: a list of texts is needed")
        return tuple(str(x) for x in value)

    def one_of(self, field: str, known: Iterable[str]) -> str:
        """The text under ``field``, which is one of the ``known``."""
        text = self.text(field).strip()
        if text not in (names := list(known)):
            self.refuse(f"field '{field}': {text!r} is none of {', '.join(names)}")
        return text

    def objects(self, field: str) -> list[Json]:
        """The list of objects under ``field``."""
        value = self.value(field)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            self.refuse(f"field '{field}': wrong type: a list of objects is needed")
        return value

    def child(self, field: str) -> FileRow:
        """The object under ``field`` as a row."""
        value = self.value(field)
        if not isinstance(value, dict):
            self.refuse(f"field '{field}': an object is needed")
        return FileRow(self.file, f"{self.place}, '{field}'", value)


def _written_list(text: str) -> list[object]:
    """The list that a table's cell holds, as Python writes it; of another text a list of it: None
    and 5 are texts there."""
    import ast

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes
            found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return [text]
    return found if isinstance(found, list) else [text]


class Folder:
    """A folder of pictures, of which every part that rows name is listed once."""

    def __init__(self, path: Path, stamps: Stamps) -> None:
        self.path = path
        self._stamps = stamps
        self._listed: dict[str, set[str]] = {}

    def picture(self, row: FileRow, name: str) -> FilePicture:
        """The picture of a row; refuses a name of no file."""
        inner = inside(str(self.path), name)
        if inner is None:
            row.refuse(f"the picture {name!r} lies outside {str(self.path)!r}")
        parent, _, file = inner.rpartition("/")
        if parent not in self._listed:
            self._listed[parent] = self._list(self.path / parent)
        if file not in self._listed[parent]:
            row.refuse(f"missing picture: there is no file {str(self.path / inner)!r}")
        return FilePicture(self.path / inner, inner)

    def lists_file(self, name: str) -> bool:
        """Whether a file of that name lies in the folder itself."""
        return name in self._list(self.path)

    def by_stem(self) -> dict[str, str]:
        """The folder's pictures by their name without its end."""
        names = sorted(self._list(self.path))
        return {Path(name).stem: name for name in names if is_picture(name)}

    def _list(self, folder: Path) -> set[str]:
        self._stamps[folder] = stamp(folder)
        try:
            return set(os.listdir(folder)) if folder.is_dir() else set()
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return set()


class BenchmarkFiles:
    """The data root as one benchmark sees it. ``stamps`` tells, of every file and folder that was
    looked at, whether it is still the same; ``files`` are those that were read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stamps: Stamps = {}
        self.files: dict[Path, None] = {}
        self._parsed: dict[Path, Any] = {}

    def find(self, candidates: Candidates) -> Path | None:
        """The first that exists."""
        for name in candidates:
            path = self.root / name
            self.stamps[path] = stamp(path)
            if self.stamps[path]:
                return path
        return None

    def need(self, candidates: Candidates, source: str = "") -> Path:
        """As ``find``; refuses with where it must be (and ``source``, where it is to be had)."""
        if path := self.find(candidates):
            return path
        raise InputError(
            f"{self.root / candidates[0]}: no such file or folder; it is needed beside the others"
            f"{f' ({source})' if source else ''}."
        )

    def text(self, candidates: Candidates, source: str = "") -> tuple[Path, str]:
        """A text file, without its last line breaks."""
        path = self.need(candidates, source)
        refuse_foreign(path, "the file")
        try:
            return self._read(candidates), path.read_text(encoding="utf-8-sig").rstrip("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is no UTF-8 text ({error.reason}).") from error

    def folder(self, candidates: Candidates) -> Folder:
        """A folder of pictures."""
        return Folder(self.need(candidates), self.stamps)

    def json(self, candidates: Candidates) -> tuple[Path, Any]:
        """A whole JSON file; refuses one that is cut off, or that names a key twice."""
        path = self._read(candidates)
        if path in self._parsed:
            return path, self._parsed[path]
        try:
            content = path.read_text(encoding="utf-8-sig")
            found = json.loads(content, object_pairs_hook=lambda pairs: _once(path, pairs))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: is cut off or no valid JSON: {error}. Get the file again."
            ) from error
        self._parsed[path] = found
        return path, found

    def by_key(self, candidates: Candidates) -> Iterator[tuple[str, FileRow]]:
        """The entries of a JSON object whose values are objects."""
        path, content = self.json(candidates)
        if not isinstance(content, dict):
            raise InputError(f"{path}: a JSON object {{...}} is needed.")
        for key, values in content.items():
            yield key, _row(path, f"entry {key!r}", values)

    def in_list(self, candidates: Candidates, key: str) -> Iterator[FileRow]:
        """The objects of the list under ``key`` of a JSON object."""
        path, content = self.json(candidates)
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise InputError(f"{path}: a JSON object with the list '{key}' is needed.")
        for number, values in enumerate(rows, 1):
            yield _row(path, f"row {number} of '{key}'", values)

    def list(self, candidates: Candidates) -> Iterator[FileRow]:
        """The objects of a JSON list."""
        path = self._read(candidates)
        for number, values in _some(path, elements(path, "the file")):
            yield _row(path, f"row {number}", values)

    def lines(self, candidates: Candidates) -> Iterator[FileRow]:
        """The objects of a file with one JSON object a line."""
        path = self._read(candidates)
        for number, line in _some(path, lines(path, "the file")):
            place = f"line {number}"
            try:
                yield _row(path, place, parsed(line))
            except BadRow as error:
                FileRow(path, place, {}).refuse(str(error))

    def rows(self, candidates: Candidates) -> Iterator[FileRow]:
        """The objects of a JSON list, or of a file with one a line."""
        listed = is_list(self._read(candidates), "the file")
        yield from self.list(candidates) if listed else self.lines(candidates)

    def tabbed(self, path: Path, names: Sequence[str]) -> Iterator[FileRow]:
        """The lines of a text file of a few columns without a header."""
        self.files[path] = None
        self.stamps[path] = stamp(path)
        for number, line in _some(path, lines(path, "the file")):
            try:
                cells = line.decode("utf-8").rstrip("\r\n").split("\t")
            except UnicodeDecodeError as error:
                FileRow(path, f"line {number}", {}).refuse(f"is not UTF-8 ({error.reason})")
            row = FileRow(path, f"line {number}", dict(zip(names, cells, strict=False)))
            if len(cells) != len(names):
                row.refuse(f"{', '.join(names)} are needed, with a tab between them")
            yield row

    def table(self, candidates: Candidates, without_picture: bool = False) -> Iterator[FileRow]:
        """The rows of one of VLMEvalKit's tables, each with its own picture or another row's; where
        ``without_picture``, also those that have none."""
        path = self._read(candidates)
        own: dict[str, TablePicture] = {}
        later: list[FileRow] = []
        for one in read_table(path):
            row = FileRow(path, f"row {one.number} (line {one.line})", one.values, one.picture)
            if one.picture:
                own[row.text("index")] = one.picture
            later.append(row)
        if not later:
            raise InputError(f"{path}: there is no question in it. Get the file again.")
        for row in later:
            if row.held or (without_picture and not row.maybe("image")):
                yield row
                continue
            index = row.text("image")
            if index not in own:
                row.refuse(
                    f"missing picture: column 'image' holds {index!r}, and no row of that index "
                    "has a picture"
                )
            yield FileRow(row.file, row.place, row.values, own[index])

    def _read(self, candidates: Candidates) -> Path:
        path = self.need(candidates)
        if not path.is_file():
            raise InputError(f"{path}: is a folder, a file is needed.")
        if problem := foreign(path, "the file"):
            raise InputError(f"{path}: {problem}.")
        self.files[path] = None
        return path


def indexed(rows: Iterable[FileRow], field: str) -> dict[str, FileRow]:
    """The rows by the text under ``field``, which no two may share."""
    found: dict[str, FileRow] = {}
    for row in rows:
        if first := found.get(row.text(field)):
            row.refuse(f"duplicate id {row.text(field)!r}, as in {first.place}")
        found[row.text(field)] = row
    return found


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def stamp(path: Path) -> tuple[int, int] | None:
    """Differs when a file, or a folder's list of files, may have changed; None: there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _some(path: Path, rows: Iterable[Read]) -> Iterator[Read]:
    """The rows of a file that has one at least: without any, a part of a benchmark would be left
    out unseen."""
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise InputError(f"{path}: is empty. Get the file again.")


def _row(path: Path, place: str, values: object) -> FileRow:
    try:
        return FileRow(path, place, object_of(values))
    except BadRow as error:
        FileRow(path, place, {}).refuse(str(error))


def _once(path: Path, pairs: list[tuple[str, Any]]) -> Json:
    """A JSON object; of a key that stands in it twice, ``json`` would keep one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{path}: entry {twice!r}: duplicate id, it stands there twice.")
    return found


def columns(row: FileRow, needed: Iterable[str]) -> None:
    """Refuses a table that lacks a column."""
    for name in needed:
        if name not in row.values and not (name == "image" and row.held):
            known = suggest(name, [ends(one, 60) for one in row.values])
            raise InputError(f"{row.file}: {row.place}: column '{name}' is missing.{known}")
