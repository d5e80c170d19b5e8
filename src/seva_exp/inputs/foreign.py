"""Files that are no UTF-8 text, told by how they begin: packed ones, tables, other encodings."""

from __future__ import annotations

from pathlib import Path

from seva_exp.core.errors import InputError

SIGNATURES = {
    b"\x1f\x8b": "gzip: unpack it (gunzip FILE)",
    b"PK\x03\x04": "a zip archive: unpack it (unzip FILE)",
    b"BZh": "bzip2: unpack it (bunzip2 FILE)",
    b"\xfd7zXZ\0": "xz: unpack it (unxz FILE)",
    b"\x28\xb5\x2f\xfd": "zstandard: unpack it (unzstd FILE)",
    b"PAR1": "Parquet: data=parquet reads rows that hold pictures; write others as JSON lines",
    b"ARROW1": "Arrow: write its rows as JSON lines, or save it as a data set for data=hf",
}
ENCODINGS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
READ = 64
"""Bytes that are looked at."""


def foreign(path: Path, where: str) -> str:
    """What a file is that is no text as ours are, and what to do ("" if it may be one). Raises
    InputError, which begins with ``where``, for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(READ)
    except OSError as error:
        problem = error.strerror or error
        raise InputError(f"{where}: {str(path)!r} cannot be read: {problem}.") from error
    for signature, name in SIGNATURES.items():
        if start.startswith(signature):
            return f"is {name}"
    if encoding := _encoding(start):
        return f"is {encoding}: write it as UTF-8 (iconv -f {encoding} -t UTF-8 FILE)"
    return ""


def refuse_foreign(path: Path, where: str) -> None:
    """InputError, which begins with ``where``, for a file that is no UTF-8 text."""
    if problem := foreign(path, where):
        raise InputError(f"{where}: {str(path)!r} {problem}.")


def _encoding(start: bytes) -> str:
    """Of a text with a byte order mark, or with the zeros that ASCII has in UTF-16."""
    for mark, encoding in ENCODINGS.items():
        if start.startswith(mark):
            return encoding
    pairs = start[: len(start) // 2 * 2]
    for name, zeros, others in (("UTF-16LE", pairs[1::2], pairs[::2]),
                                ("UTF-16BE", pairs[::2], pairs[1::2])):  # fmt: skip
        if len(pairs) > 2 and not any(zeros) and all(others):
            return name
    return ""
