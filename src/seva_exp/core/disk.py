"""Disks that fail, and files of our own that turn out damaged: what is told, what is set aside."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError in it names the file: one that is raised while bytes are written names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def set_aside(path: Path, how: str = "damaged") -> Path:
    """Rename a file or folder that cannot be used, so that a person can look at it: its new
    place. Its name begins as before."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for count in range(1, 1000):
        aside = path.with_name(f"{path.name}.{how}-{stamp}{f'-{count}' if count > 1 else ''}")
        if not os.path.lexists(aside):
            break
    path.rename(aside)
    return aside


def warn_of_damage(text: str) -> None:
    """One line on standard error, of a file of our own that cannot be used and is made again."""
    with suppress(OSError, ValueError):
        print(f"Warning: {text}", file=sys.stderr, flush=True)


REMEDIES = {
    errno.EACCES: "Its owner can change that (chmod), or give another folder",
    errno.EPERM: "Its owner can change that (chmod), or give another folder",
    errno.EROFS: "Give another folder: machine.store=DIR, machine.runs=DIR",
    errno.EMFILE: "Raise the limit (ulimit -n 4096)",
    errno.ENFILE: "Close other programs",
    errno.EIO: "Look at the disk (dmesg)",
}
FULL = (errno.ENOSPC, errno.EDQUOT)
WORDS_OF_FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "disk is full")
WORDS_OF_WRITING = (
    "PytorchStreamWriter",
    "inline_container",
    "file write failed",
    "iostream error",
)
"""Of libraries that do not say why they could not write."""
ROOM = 2**24
"""Bytes below which a disk is full to them."""


def is_of_disk(error: BaseException) -> bool:
    """Whether the system refused something of a file. Where bytes are read or written the error
    names none."""
    if not isinstance(error, OSError) or error.errno is None:
        return False
    return bool(error.filename) or error.errno in (*FULL, *REMEDIES)


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether an error says that there is no room on a disk, in the words of any library."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    text = str(error)
    if any(word in text for word in WORDS_OF_FULL):
        return True
    return any(word in text for word in WORDS_OF_WRITING) and free_space(folder) < ROOM


def message_of_disk(error: OSError | Exception, folder: Path) -> str:
    """What happened to a file, and what to do, for a person; ``folder`` where the error names no
    file. The room that is left is that of the disk."""
    name = getattr(error, "filename", None)
    place = Path(os.fsdecode(name)) if name else folder
    goes_on = "what was finished is kept, and the same command resumes from it"
    if is_full(error, folder):
        where = place if place.is_dir() else place.parent
        left = f"{'no inode for another file, ' if _no_inode(where) else ''}"
        left += f"{free_space(where) / 2**20:.0f} MiB left"
        return (
            f"{where}: the disk is full ({left}). Make room there, or give another "
            f"folder (machine.store=DIR, machine.runs=DIR); {goes_on}."
        )
    what = getattr(error, "strerror", None) or str(error)
    remedy = REMEDIES.get(getattr(error, "errno", None) or 0, "Mend that")
    return f"{place}: {what}. {remedy}; {goes_on}."


def _no_inode(folder: Path) -> bool:
    """Whether the disk, which bounds the number of its files, has room for none."""
    with suppress(OSError):
        disk = os.statvfs(folder)
        return bool(disk.f_files) and not disk.f_favail
    return False


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, or of the first above it that is there."""
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return 0
