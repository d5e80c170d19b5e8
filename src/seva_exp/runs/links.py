"""Readable names in a folder of runs that stand for other places: symbolic links, or text files
that hold the path where links are refused."""

from __future__ import annotations

import os
from pathlib import Path

LONGEST = 4096
"""Bytes of a text file that can be a link."""


def write_link(name: Path, target: Path) -> None:
    """A relative symbolic link, replaced in one step; where links are refused, a text file."""
    temporary = name.with_name(f".{name.name}.{os.getpid()}")
    relative = os.path.relpath(target.absolute(), name.parent.absolute())
    try:
        temporary.symlink_to(relative, target_is_directory=target.is_dir())
        temporary.replace(name)
    except OSError:
        temporary.unlink(missing_ok=True)
        if not name.is_dir():
            name.write_text(f"{followed(target).absolute()}\n", encoding="utf-8")


def followed(path: Path) -> Path:
    """Where ``path`` leads when it, or a folder on its way, is a link of either sort. It need not
    be there any more."""
    if path.exists() and not path.is_file():
        return path.resolve()
    for link in (path, *path.parents):
        if not link.is_symlink() and link.is_file():
            target = _written(link)
            return followed(target / path.relative_to(link)) if target else path.resolve()
    return path.resolve()


def _written(file: Path) -> Path | None:
    """The place that a text file stands for; None where it is a file of its own."""
    if file.stat().st_size > LONGEST:
        return None
    text = file.read_bytes().decode("utf-8", errors="replace")
    line = text.removesuffix("\n")
    target = Path(line)
    return target if "\n" not in line and target.is_absolute() and target != file else None
