"""What the sources of large files share that hold many samples, pictures included."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from seva_exp.core.errors import InputError
from seva_exp.core.printable import flat
from seva_exp.core.records import Drop, ImageRef, Sample
from seva_exp.core.spec import Json, digest
from seva_exp.data.base import Hasher, PathSource, refuse_placeholder, some
from seva_exp.data.conversation import Turns, text_in
from seva_exp.data.draw import collect, draw, in_order
from seva_exp.data.kept import Kept
from seva_exp.data.rows import stop
from seva_exp.inputs.fields import BadRow
from seva_exp.inputs.images import UnusableImage, image_of_bytes
from seva_exp.inputs.user_paths import existing_folder


@dataclass(frozen=True)
class Picture:
    """A picture's bytes, and where they lie: the path of an ``ImageRef``. ``field`` is what holds
    it."""

    content: bytes
    place: str
    field: str


@dataclass(frozen=True)
class PackedRow:
    """The row of a file: its ``number`` (1-based), the sample's id, what it holds, or why it is
    none."""

    number: int
    id: str
    picture: Picture | None = None
    values: Json | None = None
    fault: BadRow | None = None


class PackedData(PathSource):
    """Samples in a few large files, in the order of ``files`` and of the rows in each.

    Pictures stay where they are: a sample's picture is a place in its file, so nothing is copied
    and a view's answers read only the pictures that they need. Each that is used has been decoded
    once. A sample's id is the file's name and the row there.
    """

    needs = "FOLDER_OR_FILE"
    path: str | None = Field(None, min_length=1, description="the files' folder, or one file")
    files: tuple[str, ...] = Field(
        min_length=1,
        description="names or patterns (*, ?, [...], **/) below the folder, each file once, those "
        "of a pattern sorted by name",
    )
    question_field: str | None = Field(None, min_length=1)
    prompt: str = Field(
        "Describe the image in detail.",
        min_length=1,
        description="the question to every picture where question_field is null",
    )
    response_field: str | None = Field(None, min_length=1)
    samples: int | None = Field(
        None, ge=1, description="number of rows to draw, by the run's seed; null: all of them"
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop",
        description="what a bad row does: end the run, or be left out and counted; a file that "
        "cannot be read ends it always",
    )

    @property
    def responds(self) -> bool:
        return self.response_field is not None

    @property
    def seeded(self) -> bool:
        return self.samples is not None

    def check(self, where: str = "data") -> None:
        """Looks at the paths and at the first file and row."""
        refuse_placeholder(f"{where}.prompt", self.prompt)
        [first, *_] = self._names(where)
        self._look_over(first, where)
        if next(self._every([first], where, Kept()), None) is None:
            raise InputError(f"{where}.path: there is no row in {str(self._root() / first)!r}.")

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        if self.path is None:
            return self.fields("files")
        root, names = self._root(), self._names(where)
        contents = [[name, sha256(root / name)] for name in names]
        fields = self.fields("path", "files")
        return fields | {"files": len(names), "contents": digest(contents)}

    def estimate(self, where: str = "data") -> int | None:
        rows = self._count(self._names(where), where)
        return min(rows, self.samples or rows)

    def image_root(self, root: Path) -> Path:
        return self._root()

    def read(
        self,
        seed: int,
        root: Path,
        sha256: Hasher,
        where: str = "data",
        kept: Kept | None = None,
    ) -> Iterator[Sample | Drop]:
        names = self._names(where)
        for name in names:
            self._look_over(name, where)
        keep = kept or Kept()
        every = self._every(names, where, keep)
        made = self._drawn(names, seed, where, keep) if self.samples else every
        return some(made, f"{where}.path", self.path, "row", "rows")

    def _every(
        self, names: list[str], where: str, kept: Kept, wanted: frozenset[str] | None = None
    ) -> Iterator[Sample | Drop]:
        for name in names:
            yield from kept.part(partial(self._of_file, name, where, wanted))

    def _of_file(
        self, file: str, where: str, wanted: frozenset[str] | None, after: int
    ) -> Iterator[Sample | Drop]:
        for row in self._rows(file, where, wanted, after):
            yield self._sample(file, row, where)

    def _drawn(
        self, names: list[str], seed: int, where: str, kept: Kept
    ) -> Iterator[Sample | Drop]:
        """Of the rows their ids are held, and the samples that are drawn. What is drawn first is
        read in the files' order, spares one by one."""
        ids = [id for name in names for id in self._ids(name, where)]
        spares = self.on_error == "skip"
        drawn = draw(ids, self.samples, seed, f"data.{self.kind}.draw", spares)
        first = self._every(names, where, kept, frozenset(drawn.tried[: drawn.wanted]))
        found = {id: one for one in first if (id := _id_of(one))}

        def make(id: str) -> Sample | Drop:
            return found.get(id) or next(self._every(names, where, kept, frozenset([id])))

        if len(drawn.tried) == drawn.wanted and not drawn.rest:
            yield from in_order(ids, drawn, make)
            return
        samples, drops = collect(drawn, make)
        yield from (samples.get(id) or drops[id] for id in ids)

    def _sample(self, file: str, row: PackedRow, where: str) -> Sample | Drop:
        try:
            if row.fault:
                raise row.fault
            assert row.picture and row.values is not None
            return self._made(row.id, row.picture, row.values)
        except BadRow as error:
            if self.on_error == "skip":
                return error.drop(row.id)
            stop(where, str(self._root() / file), row.number, error)

    def _made(self, id: str, picture: Picture, values: Json) -> Sample:
        prompt, response = self.prompt, ""
        if self.question_field:
            prompt = text_in(values, self.question_field, Turns.first_question)
        if self.response_field:
            response = text_in(values, self.response_field, Turns.first_answer)
        try:
            image_of_bytes(picture.content)
        except UnusableImage as error:
            detail = error.detail or f"{len(picture.content)} bytes"
            raise BadRow(error.reason, detail, picture.field) from error
        sha256 = hashlib.sha256(picture.content).hexdigest()
        return Sample(id, ImageRef(picture.place, sha256), prompt, response)

    def _given(self) -> Path:
        return Path(self.required_path("data")).expanduser().absolute()

    def _root(self) -> Path:
        given = self._given()
        return given.parent if given.is_file() else given

    def _names(self, where: str) -> list[str]:
        """The files relative to the folder, each once."""
        self.required_path(where)
        given = self._given()
        if given.is_file():
            return [given.name]
        root, found = existing_folder(f"{where}.path", str(given)), dict[str, None]()
        for pattern in self.files:
            try:
                matches = sorted(root.glob(pattern))
            except (ValueError, NotImplementedError) as error:
                raise InputError(f"{where}.files: {pattern!r}: {error}.") from error
            names = [file.relative_to(root).as_posix() for file in matches if file.is_file()]
            if not names:
                raise InputError(f"{where}.files: no file {pattern!r} lies in {str(root)!r}.")
            found |= dict.fromkeys(names)
        return list(found)

    def _refuse_file(self, where: str, file: str, problem: object) -> InputError:
        words = flat(str(problem))
        return InputError(
            f"{where}.path: {str(self._root() / file)!r} cannot be read: {words}. Get the file "
            f"anew, or name the others with {where}.files=[...]."
        )

    @abstractmethod
    def _look_over(self, file: str, where: str) -> None:
        """Raises InputError for what is wrong with the file at first glance."""

    @abstractmethod
    def _count(self, files: list[str], where: str) -> int:
        """About how many rows the files have. Raises InputError."""

    @abstractmethod
    def _ids(self, file: str, where: str) -> Iterator[str]:
        """The ids of the file's rows, in their order; no picture is read. Raises InputError."""

    @abstractmethod
    def _rows(
        self, file: str, where: str, wanted: frozenset[str] | None, after: int
    ) -> Iterator[PackedRow]:
        """The file's rows with these ids (None: all) in their order, without the first ``after`` of
        them, whose pictures are not read. Raises InputError."""


def _id_of(one: Sample | Drop) -> str:
    return one.id if isinstance(one, Sample) else one.sample_id
