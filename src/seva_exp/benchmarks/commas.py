"""Tables of comma- or tab-separated values with a header, as spreadsheets write them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

from seva_exp.benchmarks.files import FileRow

TAB = ".tsv"
"""How the name of a table ends whose cells are separated by tabs."""


def csv_rows(
    path: Path, text: str, needed: Sequence[str] = (), first: str | None = None
) -> Iterator[FileRow]:
    """The rows of a table whose header has the ``needed`` columns; blank lines are none. ``first``
    is what the first column is called, whatever the header says. Refuses a row that is longer or
    shorter than the header."""
    delimiter = "\t" if path.suffix.lower() == TAB else ","
    reader = csv.reader(StringIO(text, newline=""), strict=True, delimiter=delimiter)
    header: list[str] | None = None
    number = 0
    try:
        for cells in reader:
            if header is None:
                header = _header(path, cells, needed, first)
            elif cells:
                number += 1
                row = FileRow(path, f"row {number} (line {reader.line_num})", {})
                if len(cells) != len(header):
                    row.refuse(f"has {len(cells)} columns, the header has {len(header)}")
                yield replace(row, values=dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        FileRow(path, f"line {reader.line_num}", {}).refuse(f"is no CSV ({error})")


def _header(path: Path, cells: list[str], needed: Sequence[str], first: str | None) -> list[str]:
    names = [cell.strip() for cell in cells]
    if first is not None:
        names[:1] = [first]
    row = FileRow(path, "the header", {})
    for name in needed:
        if name not in names:
            one = len(names) == 1 and ";" in names[0]
            hint = "; it is separated by ';', a comma is needed" if one else ""
            row.refuse(f"column {name!r} is missing{hint}")
    if twice := [name for name in names if names.count(name) > 1]:
        row.refuse(f"two columns are called {twice[0]!r}")
    return names
