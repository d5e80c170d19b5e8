"""WebDataset's tar shards: files that share a name up to the first dot are one sample."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from itertools import count, islice
from typing import IO, Literal

from pydantic import Field

from seva_exp.core.printable import printable
from seva_exp.core.spec import Json
from seva_exp.data.packed import PackedData, PackedRow, Picture
from seva_exp.inputs.fields import BadRow, encodable, object_of, parsed, value_of
from seva_exp.inputs.images import IMAGE_SUFFIXES
from seva_exp.inputs.packed import place_in_tar

LARGEST_TEXT = 1 << 24
"""Bytes of a question's file that are read."""
Group = dict[str, tarfile.TarInfo]
"""A sample's files by what follows the first dot of their names."""


class WebdatasetData(PackedData):
    """Samples of plain tar files, as the webdataset package writes them: ``0001.jpg`` and
    ``0001.txt`` (or ``0001.json``) after each other are one. A sample's id is ``FILE#0001``; its
    number in messages is its place in the file. Hidden files are left out.
    """

    kind: Literal["webdataset"] = "webdataset"
    files: tuple[str, ...] = Field(
        ("*.tar",),
        min_length=1,
        description="names or patterns (*, ?, [...], **/) below the folder, each file once, those "
        "of a pattern sorted by name",
    )
    question_field: str | None = Field(
        None,
        min_length=1,
        description="what follows the first dot of the question's file (txt), or json.KEY for a "
        "text or turns in the sample's .json; null: prompt",
    )
    response_field: str | None = Field(
        None, min_length=1, description="the answer's file or key, likewise; null: none"
    )
    image_field: str | None = Field(
        None,
        min_length=1,
        description="what follows the first dot of the picture's file; null: the first picture's",
    )

    def _look_over(self, file: str, where: str) -> None:
        next(self._groups(file, where), None)

    def _count(self, files: list[str], where: str) -> int:
        """As if all were like the first one: of the others no header is read."""
        sizes = [(self._root() / file).stat().st_size for file in files]
        first = sum(1 for _ in self._groups(files[0], where))
        return round(first * sum(sizes) / max(1, sizes[0]))

    def _ids(self, file: str, where: str) -> Iterator[str]:
        return (id for _, id, _, _ in self._named(file, where))

    def _rows(
        self, file: str, where: str, wanted: frozenset[str] | None, after: int
    ) -> Iterator[PackedRow]:
        path = self._root() / file
        named = (row for row in self._named(file, where) if wanted is None or row[1] in wanted)
        with path.open("rb") as tar:
            for number, id, group, fault in islice(named, after, None):
                try:
                    if fault:
                        raise fault
                    yield self._row(file, tar, number, id, group)
                except BadRow as error:
                    yield PackedRow(number, id, fault=error)

    def _named(self, file: str, where: str) -> Iterator[tuple[int, str, Group, BadRow | None]]:
        """(number, id, files, what is wrong with the name) of each sample."""
        seen: set[str] = set()
        for number, (name, group) in zip(count(1), self._groups(file, where), strict=False):
            id, fault = f"{file}#{encodable(name)}", None
            if id in seen:
                detail = f"{name!r} stands in two places of the file"
                id, fault = f"{id}#{number}", BadRow("duplicate id", detail)
            seen.add(id)
            yield number, id, group, fault

    def _groups(self, file: str, where: str) -> Iterator[tuple[str, Group]]:
        """(name, files) of each sample. Of the archive's headers only the last is held."""
        path, name, group = self._root() / file, "", Group()
        try:
            with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as tar:
                while member := tar.next():
                    tar.members.clear()  # type: ignore[attr-defined]
                    key, ending = _parts(member.name)
                    if not member.isreg() or not ending:
                        continue
                    if key != name and group:
                        yield name, group
                        group = {}
                    name = key
                    group.setdefault(ending, member)
                _check_end(tar)
        except (OSError, tarfile.TarError) as error:
            problem = f"after {name!r}: {error}" if name else f"no plain tar file: {error}"
            raise self._refuse_file(where, file, problem) from error
        if group:
            yield name, group

    def _row(self, file: str, tar: IO[bytes], number: int, id: str, group: Group) -> PackedRow:
        pictures = (ending for ending in group if f".{ending.lower()}" in IMAGE_SUFFIXES)
        ending = self.image_field or next(pictures, "")
        if ending not in group:
            found = ", ".join(printable(encodable(e)) for e in group)
            raise BadRow("missing", f"no picture among its files: {found}", self.image_field or "")
        member = group[ending]
        place = place_in_tar(file, member.offset_data, member.size)
        values: Json = {}
        for field in (self.question_field, self.response_field):
            if field:
                values[field] = _value(tar, group, field)
        return PackedRow(number, id, Picture(_content(tar, member), place, ending), values)


def _parts(path: str) -> tuple[str, str]:
    """The sample's name and what follows its first dot; "" for a hidden file."""
    folder, slash, name = path.rpartition("/")
    stem, _, ending = name.partition(".")
    return folder + slash + stem, ending if stem else ""


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises TarError where the archive does not end here: tarfile takes a broken header for it."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"broken header at byte {tar.offset}")


def _content(tar: IO[bytes], member: tarfile.TarInfo) -> bytes:
    if member.issparse():
        raise BadRow("sparse file", printable(repr(member.name)))
    tar.seek(member.offset_data)
    return tar.read(member.size)


def _value(tar: IO[bytes], group: Group, field: str) -> object:
    """The text or turns that ``field`` names."""
    ending, _, key = (field, "", "") if field in group else field.partition(".")
    if ending not in group:
        raise BadRow("missing", f"no such file of the sample; it has {', '.join(group)}", field)
    if group[ending].size > LARGEST_TEXT:
        raise BadRow("too large", f"{group[ending].size} bytes", field)
    content = _content(tar, group[ending])
    if key:
        return value_of(object_of(parsed(content)), key)
    try:
        return content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadRow("not text", str(error), field) from error
