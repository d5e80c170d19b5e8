"""What the sources of JSON rows share: a row's fields, its picture, and what a bad row does."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import Field

from seva_exp.core.errors import InputError
from seva_exp.core.records import Drop, ImageRef, Sample
from seva_exp.core.spec import Json, digest
from seva_exp.data.base import Hasher, PathSource, hash_or_none, some
from seva_exp.data.draw import DrawnOrder, collect, draw
from seva_exp.data.kept import Kept
from seva_exp.inputs.fields import BadRow, picture_path, text_of, value_of
from seva_exp.inputs.images import UnusableImage, open_image
from seva_exp.inputs.user_paths import existing_file, existing_folder, inside


@dataclass(frozen=True)
class DataRow:
    """A well-formed row: ``number`` is its line, or its place in the list (1-based); ``image`` is
    relative to the root."""

    number: int
    id: str
    image: str
    prompt: str
    response: str = ""
    rejected: tuple[str, ...] = ()


Rows = Iterator[tuple[str, DataRow | Drop]]
"""By name, those that are not well-formed as drops."""
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
        existing_file(f"{where}.path", self.required_path(where))
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
        return Path(self.required_path("data")).expanduser()

    def _root(self) -> str:
        folder = Path(self.image_folder).expanduser() if self.image_folder else self._file().parent
        return os.path.abspath(folder)

    def _refuse(self, where: str, number: int, error: BadRow) -> Drop:
        """The bad row as a drop; raises InputError where such a row ends the run."""
        if self.on_error == "skip" or error.left_out:
            return error.drop(row_name(number))
        root = f" Pictures are looked for below {self._root()!r}." if error.of_image else ""
        stop(where, self.path, number, error, root)

    def _identity(self, sha256: Hasher, where: str, images: set[str]) -> Json:
        """The fields, and by hash the rows and the pictures that decide the samples."""
        file = existing_file(f"{where}.path", self.required_path(where))
        root = Path(self._root())
        contents = [[name, hash_or_none(root / name, sha256)] for name in sorted(images)]
        fields = self.fields("path", "image_folder")
        return fields | {"rows": sha256(file), "images": len(images), "contents": digest(contents)}


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
            return self.fields()
        existing_file(f"{where}.path", self.path)

        def bad(number: int, error: BadRow) -> Drop:
            """With a seed it is a run that asks, which such a row ends: before it has a folder."""
            return self._refuse(where, number, error) if seed is not None else drop(number, error)

        def drop(number: int, error: BadRow) -> Drop:
            return error.drop(row_name(number))

        def rows() -> Rows:
            return self._rows(where, bad)

        drawn = self._draw(rows(), seed) if seed is not None and self.samples else None
        tried = {*drawn.tried} if drawn else None
        images: dict[str, int] = {}
        for name, row in rows():
            if isinstance(row, DataRow) and (tried is None or name in tried):
                images.setdefault(row.image, row.number)
        if self.on_error == "stop" and seed is not None:
            self._refuse_missing(sha256, where, images)
        return self._identity(sha256, where, {*images})

    def _refuse_missing(self, sha256: Hasher, where: str, images: dict[str, int]) -> None:
        """Raises InputError for the first picture that cannot be hashed; ``images`` has the first
        row of each."""
        pictures = PictureFolder(Path(self._root()), sha256)
        for image, number in images.items():
            if hash_or_none(pictures.folder / image, sha256) is None:
                try:
                    pictures.ref(image, self._image_key())
                except BadRow as error:
                    self._refuse(where, number, error)

    def read(
        self,
        seed: int,
        root: Path,
        sha256: Hasher,
        where: str = "data",
        kept: Kept | None = None,
    ) -> Iterator[Sample | Drop]:
        """Every row has been looked at before the first picture is opened. Of the rows only those
        are held that are drawn."""
        existing_file(f"{where}.path", self.required_path(where))

        def refuse(number: int, error: BadRow) -> Drop:
            return self._refuse(where, number, error)

        def rows() -> Rows:
            return self._rows(where, refuse)

        drawn, keep = self._draw(rows(), seed), kept or Kept()
        pictures = PictureFolder(self.image_root(root), sha256)

        def opened(row: DataRow) -> Sample | Drop:
            try:
                image = pictures.ref(row.image, self._image_key())
            except BadRow as error:
                return refuse(row.number, error)
            return Sample(row.id, image, row.prompt, row.response, row.rejected)

        def look(row: DataRow) -> Sample | Drop:
            return keep(lambda: opened(row))

        def made() -> Iterator[Sample | Drop]:
            if drawn is None:
                yield from (row if isinstance(row, Drop) else look(row) for _, row in rows())
                return
            tried = {*drawn.tried}
            held = {name: row for name, row in rows() if isinstance(row, DataRow) and name in tried}
            found, drops = collect(drawn, lambda name: look(held[name]))
            for name, row in rows():
                yield row if isinstance(row, Drop) else found.get(name) or drops[name]

        return some(made(), f"{where}.path", self.path, "row", "rows")

    def estimate(self, where: str = "data") -> int | None:
        rows = sum(1 for _ in self._items(where))
        return min(rows, self.samples or rows)

    def _draw(self, rows: Rows, seed: int) -> DrawnOrder | None:
        """What is drawn of the well-formed ones, after all have been looked at; None: all."""
        if self.samples is None:
            deque(rows, maxlen=0)
            return None
        names = [name for name, row in rows if isinstance(row, DataRow)]
        return draw(names, self.samples, seed, self._purpose(), self.on_error == "skip")

    def _purpose(self) -> str:
        return f"data.{self.kind}.draw"

    @abstractmethod
    def _image_key(self) -> str:
        """A row's key of the picture's path."""

    @abstractmethod
    def _look_at(self, number: int, item: object, root: str) -> DataRow:
        """The row; raises BadRow if it is not well-formed."""

    def _rows(self, where: str, refuse: Refuse) -> Rows:
        """The rows one after the other; of those before, only their ids are held, where they have
        some of their own."""
        owners: dict[str, int] = {}
        root = self._root()
        for number, item in self._items(where):
            name = row_name(number)
            try:
                row = self._look_at(number, item, root)
                if row.id in owners:
                    first = row_name(owners[row.id])
                    detail = f"{row.id!r}, as in {first}; id_field=null takes the number"
                    raise BadRow("duplicate id", detail, self.id_field or "")
            except BadRow as error:
                yield name, refuse(number, error)
                continue
            if self.id_field is not None:
                owners[row.id] = number
            yield name, row

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


REMEMBERED = 1 << 16
"""Pictures of which it is remembered what was found: rows on one picture mostly stand together."""


class PictureFolder:
    """The pictures below a folder; of the last ones each is opened and hashed once however many
    rows name it."""

    def __init__(self, folder: Path, sha256: Hasher) -> None:
        self.folder = folder
        self.sha256 = sha256
        self._found = lru_cache(REMEMBERED)(self._look)

    def ref(self, path: str, field: str) -> ImageRef:
        """Raises BadRow, which names ``field``, if there is no usable picture at ``path``."""
        result = self._found(path)
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


def row_number(name: str) -> int:
    """The number of row-000012 is 12."""
    return int(name.removeprefix("row-"))


def image_of(values: Json, field: str, root: str) -> str:
    """The picture's posix path relative to ``root``, by its text alone: links may lead out."""
    try:
        image = picture_path(value_of(values, field), field)
    except BadRow as error:
        error.of_image = True
        raise
    path = inside(root, image)
    if path is None:
        raise BadRow("outside the image folder", repr(image), field, of_image=True)
    return path
