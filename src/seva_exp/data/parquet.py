"""Parquet files whose rows hold pictures, as the Hugging Face hub has them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.spec import Json
from seva_exp.data.packed import PackedData, PackedRow, Picture
from seva_exp.inputs.fields import BadRow, only
from seva_exp.inputs.packed import group_starts, parquet, place_in_parquet, stored

if TYPE_CHECKING:
    import pyarrow.parquet

BATCH = 16
"""Rows that are decoded at once."""


class ParquetData(PackedData):
    """Rows of Parquet files: a picture (bytes, or a struct that holds ``bytes``, as an Image column
    of the `datasets` library is stored; or a list of one) with a question (a text, or the first of
    a column of turns). A sample's id is ``FILE#ROW``, rows counted from 1.

    A picture is read with its group of rows, of which the last is held: files of small groups (100
    rows, as the hub has them) are read fastest and with the least memory.
    """

    kind: Literal["parquet"] = "parquet"
    files: tuple[str, ...] = Field(
        ("*.parquet",),
        min_length=1,
        description="names or patterns (*, ?, [...], **/) below the folder, each file once, those "
        "of a pattern sorted by name",
    )
    question_field: str | None = Field(
        None, min_length=1, description="the column of the questions, or turns; null: prompt"
    )
    response_field: str | None = Field(
        None, min_length=1, description="the column of the answers (instruction data); null: none"
    )
    image_field: str = Field(
        "image", pattern=r"^[^/]+$", description="the column of the pictures' bytes"
    )

    def _look_over(self, file: str, where: str) -> None:
        names = self._open(file, where).schema_arrow.names
        for key in ("image_field", "question_field", "response_field"):
            name = getattr(self, key)
            if name is not None and name not in names:
                hint = suggest(name, names)
                raise InputError(f"{where}.{key}={name}: {file!r} has no such column.{hint}")

    def _count(self, files: list[str], where: str) -> int:
        return sum(self._open(file, where).metadata.num_rows for file in files)

    def _ids(self, file: str, where: str) -> Iterator[str]:
        rows = self._open(file, where).metadata.num_rows
        return (f"{file}#{number}" for number in range(1, rows + 1))

    def _rows(
        self, file: str, where: str, wanted: frozenset[str] | None, after: int
    ) -> Iterator[PackedRow]:
        table = self._open(file, where)
        starts = group_starts(table)
        for group, (start, end) in enumerate(pairwise(starts)):
            numbers = range(start + 1, end + 1)
            taken = [n for n in numbers if wanted is None or f"{file}#{n}" in wanted]
            left, after = frozenset(taken[after:]), max(0, after - len(taken))
            if not left:
                continue
            for number, values in self._group(table, group, start, file, where):
                if number in left:
                    yield self._row(file, f"{file}#{number}", number, values)

    def _group(
        self, table: pyarrow.parquet.ParquetFile, group: int, start: int, file: str, where: str
    ) -> Iterator[tuple[int, Json]]:
        """The rows of a group with their numbers, a few at a time in memory."""
        import pyarrow

        columns = self._columns(table)
        number = start
        try:
            for batch in table.iter_batches(BATCH, row_groups=[group], columns=columns):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
        except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
            problem = f"after row {number}: {error}"
            raise self._refuse_file(where, file, problem) from error

    def _columns(self, table: pyarrow.parquet.ParquetFile) -> list[str]:
        """Those of the file that are read."""
        fields = (self.image_field, self.question_field, self.response_field)
        return [*dict.fromkeys(name for name in fields if name)]

    def _row(self, file: str, id: str, number: int, values: Json) -> PackedRow:
        try:
            content = self._content(values[self.image_field])
        except BadRow as error:
            return PackedRow(number, id, fault=error)
        place = place_in_parquet(file, number - 1, self.image_field)
        return PackedRow(number, id, Picture(content, place, self.image_field), values)

    def _content(self, value: Any) -> bytes:
        content = stored(only(value, self.image_field))
        if content is None:
            raise BadRow("missing", "there is no picture", self.image_field)
        if isinstance(content, str):
            detail = f"the path {content!r}, not its bytes; data=jsonl reads pictures by their path"
            raise BadRow("not in the file", detail, self.image_field)
        return content

    def _open(self, file: str, where: str) -> pyarrow.parquet.ParquetFile:
        import pyarrow

        path = self._root() / file
        try:
            about = path.stat()
            return parquet(path, about.st_mtime_ns, about.st_size)
        except (OSError, pyarrow.ArrowException) as error:
            raise self._refuse_file(where, file, error) from error
