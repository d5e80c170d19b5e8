"""Marks that a person gave to pairs, in a file. No heavy import."""

from __future__ import annotations

from seva_exp.core.errors import InputError
from seva_exp.inputs.fields import BadRow, object_of, parsed, text_of
from seva_exp.inputs.json_rows import lines
from seva_exp.inputs.user_paths import existing_file

MARKS = ("keep", "drop")


def read_marks(path: str, where: str) -> dict[tuple[str, str], str]:
    """(sample id, view) -> ``keep`` or ``drop``; a view "" stands for all of the sample's. Of
    several marks of one pair the last counts. Raises InputError with the line of the first bad
    row."""
    file = existing_file(where, path)
    found: dict[tuple[str, str], str] = {}
    for number, line in lines(file, where):
        try:
            row = object_of(parsed(line))
            mark = text_of(row, "mark")
            if mark not in MARKS:
                raise BadRow("unknown mark", f"{mark!r}; keep or drop is needed", "mark")
            view = text_of(row, "view") if row.get("view") is not None else ""
            found[text_of(row, "sample_id"), view] = mark
        except BadRow as error:
            raise InputError(f"{where}: {path!r}, line {number}: {error}") from error
    if not found:
        raise InputError(f"{where}: {path!r} has no row.")
    return found
