"""What the sources of JSON rows share: a row's fields, its picture, and what a bad row does."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import Field

from seva_exp.data.base import Hasher, PathSource, SampleSet, hash_or_none, tally
from seva_exp.data.draw import collect, draw
from seva_exp.errors import InputError
from seva_exp.fields import BadRow, text_of, value_of
from seva_exp.given import existing_file, existing_folder, inside
from seva_exp.images import UnusableImage, open_image
from seva_exp.records import Drop, ImageRef, Sample
from seva_exp.spec import Json, digest


@dataclass(frozen=True)
class Row:
    """A well-formed row: ``number`` is its line, or its place in the list (1-based); ``image`` is
    relative to the root."""

    number: int
    id: str
    image: str
    prompt: str
    response: str = ""


Refuse = Callable[[int, BadRow], Drop]
"""What is done with the bad row of this number."""


class RowFile(PathSource):
    """A file of JSON rows beside a folder of pictures."""

    needs = "FILE"
    image_folder: str | None = Field(
        None,
        min_length=1,
        description="the folder that the rows' pictures are relative to; null: the file's own",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="what a bad row does: end the run, or be left out and counted"
    )

    def check(self, where: str = "data") -> None:
        """Looks at the paths and at the first row."""
        existing_file(f"{where}.path", self.given(where))
        if self.image_folder is not None:
            existing_folder(f"{where}.image_folder", self.image_folder)
        first = next(self._items(where), None)
        if first is None:
            raise InputError(f"{where}.path: there is no row in {self.path!r}.")
        try:
            self._look_at(*first, self._root())
        except BadRow as error:
            self._refuse(where, first[0], error)

    @abstractmethod
    def _items(self, where: str) -> Iterator[tuple[int, object]]:
        """(number, content) of the file's rows."""

    @abstractmethod
    def _look_at(self, number: int, item: object, root: str) -> object:
        """Raises BadRow if the row of this content is not well-formed; opens no picture."""

    def image_root(self, root: Path) -> Path:
        return Path(self._root())

    def _file(self) -> Path:
        return Path(self.given("data")).expanduser()

    def _root(self) -> str:
        folder = Path(self.image_folder).expanduser() if self.image_folder else self._file().parent
        return os.path.abspath(folder)

    def _refuse(self, where: str, number: int, error: BadRow) -> Drop:
        """The bad row as a drop; raises InputError where such a row ends the run."""
        if self.on_error == "skip":
            return error.drop(row_name(number))
        root = f" Pictures are looked for below {self._root()!r}." if error.of_image else ""
        stop(where, self.path, number, error, root)

    def _identity(self, sha256: Hasher, where: str, images: set[str]) -> Json:
        """The fields, and by hash the rows and the pictures that decide the samples."""
        file = existing_file(f"{where}.path", self.given(where))
        root = Path(self._root())
        contents = [[name, hash_or_none(root / name, sha256)] for name in sorted(images)]
        fields = self.model_dump(mode="json", exclude={"path", "image_folder"})
        return fields | {"rows": sha256(file), "images": len(images), "contents": digest(contents)}

    def _nothing(self, where: str, drops: list[Drop]) -> InputError:
        why = f"{len(drops)} rows: {tally(drops)}" if drops else "no row"
        return InputError(f"{where}.path: there is no usable row in {self.path!r} ({why}).")


class SampleRows(RowFile):
    """Rows that give one sample each."""

    id_field: str | None = Field(
        None, min_length=1, description="a row's key of its unique id; null: row-<number>"
    )
    samples: int | None = Field(
        None, ge=1, description="number of rows to draw, by the run's seed; null: all of them"
    )

    @property
    def seeded(self) -> bool:
        return self.samples is not None

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        if self.path is None:
            return self.to_json()
        existing_file(f"{where}.path", self.path)
        rows, _ = self._read(where, lambda number, error: error.drop(row_name(number)))
        drawn = draw(list(rows), self.samples, seed, self._purpose(), self.on_error == "skip")
        return self._identity(sha256, where, {rows[name].image for name in drawn.tried})

    def build(self, seed: int, root: Path, sha256: Hasher, where: str = "data") -> SampleSet:
        existing_file(f"{where}.path", self.given(where))

        def refuse(number: int, error: BadRow) -> Drop:
            return self._refuse(where, number, error)

        rows, bad = self._read(where, refuse)
        pictures = Pictures(self.image_root(root), sha256)

        def sample(name: str) -> Sample | Drop:
            row = rows[name]
            try:
                image = pictures.ref(row.image, self._image_key())
            except BadRow as error:
                return refuse(row.number, error)
            return Sample(row.id, image, row.prompt, row.response)

        drawn = draw(list(rows), self.samples, seed, self._purpose(), self.on_error == "skip")
        found, drops = collect(drawn, sample)
        drops |= bad
        left_out = [drops[name] for name in sorted(drops, key=_number)]
        if not found:
            raise self._nothing(where, left_out)
        return SampleSet([found[name] for name in rows if name in found], left_out)

    def _purpose(self) -> str:
        return f"data.{self.kind}.draw"

    @abstractmethod
    def _image_key(self) -> str:
        """A row's key of the picture's path."""

    @abstractmethod
    def _look_at(self, number: int, item: object, root: str) -> Row:
        """The row; raises BadRow if it is not well-formed."""

    def _read(self, where: str, refuse: Refuse) -> tuple[dict[str, Row], dict[str, Drop]]:
        """The well-formed rows and those that are not, both by row name."""
        rows: dict[str, Row] = {}
        drops: dict[str, Drop] = {}
        owners: dict[str, str] = {}
        root = self._root()
        for number, item in self._items(where):
            name = row_name(number)
            try:
                row = self._look_at(number, item, root)
                if row.id in owners:
                    detail = f"{row.id!r}, as in {owners[row.id]}; id_field=null takes the number"
                    raise BadRow("duplicate id", detail, self.id_field or "")
                owners[row.id], rows[name] = name, row
            except BadRow as error:
                drops[name] = refuse(number, error)
        return rows, drops

    def _id(self, number: int, values: Json) -> str:
        if self.id_field is None:
            return row_name(number)
        value = value_of(values, self.id_field)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return str(value) if is_number else text_of(values, self.id_field)


def stop(where: str, path: str | None, number: int, error: BadRow, more: str = "") -> NoReturn:
    """Ends the run with the row at fault."""
    raise InputError(
        f"{where}.path: row {number} of {path!r}: {error}.{more} "
        f"Mend the row, or leave such rows out with {where}.on_error=skip."
    )


class Pictures:
    """The pictures below a folder, each opened and hashed once however many rows name it."""

    def __init__(self, folder: Path, sha256: Hasher) -> None:
        self.folder = folder
        self.sha256 = sha256
        self.seen: dict[str, ImageRef | UnusableImage] = {}

    def ref(self, path: str, field: str) -> ImageRef:
        """Raises BadRow, which names ``field``, if there is no usable picture at ``path``."""
        if path not in self.seen:
            self.seen[path] = self._look(path)
        result = self.seen[path]
        if isinstance(result, UnusableImage):
            detail = f"{path!r} ({result.detail})" if result.detail else repr(path)
            raise BadRow(result.reason, detail, field, of_image=True)
        return result

    def _look(self, path: str) -> ImageRef | UnusableImage:
        try:
            open_image(self.folder / path)
        except UnusableImage as error:
            return error
        return ImageRef(path, self.sha256(self.folder / path))


def row_name(number: int) -> str:
    """The name of row 12 is row-000012."""
    return f"row-{number:06d}"


def _number(name: str) -> int:
    return int(name.removeprefix("row-"))


def image_of(values: Json, field: str, root: str) -> str:
    """The picture's posix path relative to ``root``, by its text alone: links may lead out."""
    try:
        image = text_of(values, field)
    except BadRow as error:
        error.of_image = True
        raise
    path = inside(root, image)
    if path is None:
        raise BadRow("outside the image folder", repr(image), field, of_image=True)
    return path
