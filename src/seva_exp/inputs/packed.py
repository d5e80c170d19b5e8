"""Pictures that lie inside larger files, read in place: the bytes of a tar archive, the rows of a
Parquet file."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_PLACE = re.compile(r"(?P<file>.+)::(?P<number>\d+)(\+(?P<size>\d+)|\.(?P<column>.+))", re.DOTALL)
_READING = Lock()
"""Threads that read ahead take turns, so that a group of rows is decoded once."""


def place_in_tar(file: str, start: int, size: int) -> str:
    """How a record names ``size`` bytes of a file from ``start`` on."""
    return f"{file}::{start}+{size}"


def place_in_parquet(file: str, row: int, column: str) -> str:
    """How a record names the value of a row (0-based) of a Parquet file."""
    return f"{file}::{row}.{column}"


def picture_bytes(path: Path) -> bytes:
    """The bytes of a picture: of a file, or of such a place in one. Raises OSError."""
    found = _PLACE.fullmatch(path.name) if "::" in path.name else None
    if found is None or path.is_file():
        return path.read_bytes()
    file, number = path.with_name(found["file"]), int(found["number"])
    if found["column"]:
        return _row(file, number, found["column"])
    with file.open("rb") as tar:
        tar.seek(number)
        content = tar.read(int(found["size"]))
    if len(content) < int(found["size"]):
        raise FileNotFoundError(f"{file} ends before byte {number + int(found['size'])}")
    return content


def is_in_place(path: Path) -> bool:
    """Whether ``path`` names a place in a file, and is no file itself."""
    return _PLACE.fullmatch(path.name) is not None and not path.is_file()


def stored(value: object) -> bytes | str | None:
    """A row's picture as it is stored: the file's bytes, else its path."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return value if isinstance(value, bytes | str) else None


def _row(file: Path, row: int, column: str) -> bytes:
    import pyarrow

    about = file.stat()
    with _READING:
        try:
            starts = group_starts(parquet(file, about.st_mtime_ns, about.st_size))
            group = bisect_right(starts, row) - 1
            values = _column(file, about.st_mtime_ns, about.st_size, group, column)
            value = stored(values[row - starts[group]].as_py())
        except (pyarrow.ArrowException, LookupError) as error:
            raise OSError(0, f"row {row + 1}: {error}") from error
    if not isinstance(value, bytes):
        raise FileNotFoundError(f"{file}: no picture in row {row + 1}")
    return value


@lru_cache(4)
def parquet(file: Path, mtime_ns: int, size: int) -> pyarrow.parquet.ParquetFile:
    """The file, its footer read once while it stays as it is. Raises OSError, ArrowException."""
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(file)


def group_starts(table: pyarrow.parquet.ParquetFile) -> list[int]:
    """The number of the first row of each group of rows, and of the row after the last."""
    about = table.metadata
    sizes = (about.row_group(number).num_rows for number in range(about.num_row_groups))
    return [0, *accumulate(sizes)]


@lru_cache(1)
def _column(file: Path, mtime_ns: int, size: int, group: int, column: str) -> pyarrow.ChunkedArray:
    """One column of one group of rows: the last one is held, since rows are read in order."""
    return parquet(file, mtime_ns, size).read_row_group(group, columns=[column]).column(column)
