"""Paths that a person gave: found, or refused with the nearest name that exists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from seva_exp.errors import InputError, nearest


def existing_folder(field: str, text: str) -> Path:
    """The folder; ``field`` (such as ``data.path``) is named in the error."""
    path = _existing(field, text, "folder")
    if not path.is_dir():
        raise InputError(f"{field}: {text!r} is a file, a folder is needed.")
    return path


def existing_file(field: str, text: str) -> Path:
    """The file; ``field`` (such as ``data.path``) is named in the error."""
    path = _existing(field, text, "file")
    if not path.is_file():
        raise InputError(f"{field}: {text!r} is a folder, a file is needed.")
    return path


def _existing(field: str, text: str, what: str) -> Path:
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError(f"{field}: there is no {what} {text!r}.{_suggestion(path)}")
    return path


def _suggestion(path: Path) -> str:
    """The sibling whose name is closest to the first part of ``path`` that does not exist."""
    missing, parent = path.absolute(), path.absolute().parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    try:
        match = nearest(missing.name, (entry.name for entry in parent.iterdir()))
    except OSError:
        return ""
    return f" Did you mean {str(parent / match)!r}?" if match else ""


def walk(folder: Path, recursive: bool = True) -> Iterator[str]:
    """The files below ``folder`` as posix paths relative to it, in no fixed order. Hidden files
    and folders are left out; links are followed, but never in circles."""
    pending = [(folder, "", frozenset({os.path.realpath(folder)}))]
    while pending:
        current, prefix, above = pending.pop()
        for entry in _entries(current):
            if not entry.is_dir():
                yield prefix + entry.name
            elif recursive and (real := os.path.realpath(entry)) not in above:
                pending.append((entry, f"{prefix}{entry.name}/", above | {real}))


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"data.path: {str(folder)!r} cannot be read: {error.strerror}.") from error
