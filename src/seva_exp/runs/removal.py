"""Folders removed so that a kill in the middle leaves nothing that looks whole, and that nothing
outside their root is ever touched."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from seva_exp.core.errors import InputError


def remove_folder(folder: Path, root: Path, aside: str) -> None:
    """Rename a real folder (no link) that lies below ``root`` (whatever leads there) to the name
    ``aside`` beside it, and delete that, links in it as links. What a removal that was killed left
    under that name goes first. Raises InputError for what is not below the root, OSError where the
    system refuses."""
    real = folder.parent.resolve() / folder.name
    if not real.is_relative_to(root.resolve()) or real == root.resolve():
        raise InputError(f"{folder}: does not lie in {root}, and is left alone.")
    if not stat.S_ISDIR(os.lstat(real).st_mode):
        raise InputError(f"{folder}: is a link or a file, and is left alone.")
    target = real.with_name(aside)
    if target != real:
        if os.path.lexists(target):
            _delete(target)
        real.rename(target)
    _delete(target)


def _delete(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def bytes_of(folder: Path) -> int:
    """The bytes of all files below it; links count as links. What goes meanwhile counts as none."""
    total = 0
    left = [os.fspath(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
    return total
