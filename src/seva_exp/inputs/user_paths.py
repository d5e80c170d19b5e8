"""Paths that a person gave: found, or refused with the nearest name that exists; YAML files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seva_exp.core.errors import InputError, nearest
from seva_exp.core.paths import MARKER
from seva_exp.core.printable import LONGEST, ends, error_text
from seva_exp.inputs.foreign import foreign

DATA_ROOT = "SEVA_EXP_DATA"
"""The environment variable that names the folder of the benchmarks' official files."""


def data_root(value: str | None) -> Path | None:
    """The folder of the benchmarks' official files: the one given, else the environment's; None
    where neither is set."""
    text = value or os.environ.get(DATA_ROOT)
    field = "data_root" if value else f"${DATA_ROOT}"
    return existing_folder(field, text).absolute() if text else None


def existing_folder(field: str, text: str) -> Path:
    """The folder; ``field`` (such as ``data.path``) is named in the error."""
    path = _existing(field, text, "folder", Path.is_dir)
    if not path.is_dir():
        raise InputError(f"{field}: {text!r} is a file, a folder is needed.")
    return path


def existing_file(field: str, text: str) -> Path:
    """The file; ``field`` (such as ``data.path``) is named in the error."""
    path = _existing(field, text, "file", Path.is_file)
    if not path.is_file():
        raise InputError(f"{field}: {text!r} is a folder, a file is needed.")
    return path


def _existing(field: str, text: str, what: str, fits: Callable[[Path], bool]) -> Path:
    path = Path(text).expanduser()
    try:
        there = path.exists()
    except OSError as error:
        content = " It takes the name of a file, not its content." if len(text) > LONGEST else ""
        raise InputError(f"{field}: {ends(text)!r}: {error.strerror}.{content}") from None
    if not there:
        raise InputError(f"{field}: there is no {what} {ends(text)!r}.{_suggestion(path, fits)}")
    return path


def _suggestion(path: Path, fits: Callable[[Path], bool]) -> str:
    """The sibling whose name is closest to the first part of ``path`` that does not exist. It
    ``fits`` where that is the last part, and is a folder otherwise."""
    missing, parent = path.absolute(), path.absolute().parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent, fits = parent, parent.parent, Path.is_dir
    try:
        match = nearest(missing.name, (entry.name for entry in parent.iterdir() if fits(entry)))
    except OSError:
        return ""
    return f" Did you mean {str(parent / match)!r}?" if match else ""


def yaml_mapping(file: Path, where: str, needed: str) -> dict[Any, Any]:
    """The content of a YAML file. Raises InputError, which begins with ``where``, for what cannot
    be read or is no mapping (``needed`` says of what)."""
    import yaml

    if problem := foreign(file, where):
        raise InputError(f"{where}: {problem}.")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, ArithmeticError, RecursionError, yaml.YAMLError) as error:
        problem = error_text(error)
        raise InputError(f"{where}: cannot be read: {problem}") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: {needed}")
    return content


def inside(root: str, name: str) -> str | None:
    """The posix path of ``name`` relative to the absolute folder ``root``; None where it lies
    outside. By the text alone: links may lead out."""
    path = os.path.normpath(os.path.join(root, name))
    prefix = root.rstrip(os.sep) + os.sep
    return Path(path.removeprefix(prefix)).as_posix() if path.startswith(prefix) else None


def walk(folder: Path, recursive: bool, field: str) -> Iterator[str]:
    """The files below ``folder`` as posix paths relative to it, in no fixed order.

    Hidden files and folders are left out, and folders that hold ``MARKER``: the outputs of runs.
    Links are followed, but each folder is visited once: by its own path if that lies below
    ``folder``, else by the link that is found first. Which one that is depends on names alone.
    ``field`` is named in errors.
    """
    if os.path.lexists(folder / MARKER):
        raise InputError(
            f"{field}: {str(folder)!r} holds the outputs of runs (there is a file {MARKER} in "
            "it). Give a folder of data, or delete that file if the outputs lie elsewhere now."
        )
    seen: set[str] = set()
    starts = [(folder, "")]
    for start in starts:  # grows by the links that are found
        pending = [start]
        links: list[tuple[Path, str]] = []
        while pending:
            current, prefix = pending.pop()
            real = os.path.realpath(current)
            if real in seen or os.path.lexists(current / MARKER):
                continue
            seen.add(real)
            for entry in _entries(current, field):
                if not os.path.isdir(entry):
                    yield prefix + entry.name
                elif recursive:
                    found = links if entry.is_symlink() else pending
                    found.append((entry, f"{prefix}{entry.name}/"))
        starts += sorted(links, key=lambda link: link[1])


def _entries(folder: Path, field: str) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{field}: {str(folder)!r} cannot be read: {error.strerror}.") from error
