"""The one way to write a file that others read: it is there when all of it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from seva_exp.core.disk import named


@contextmanager
def whole_file(path: Path, shared: bool = False, flush: bool = True) -> Iterator[IO[bytes]]:
    """A file that is there when all of it is: temporary file beside it, flush to disk, rename.

    ``shared``: several processes may write it at the same time, so that each has a temporary file
    of its own. Else there is one name for it: what a killed process left is overwritten by the
    next one, and no artifact keeps it. Without ``flush`` it is whole, but may be an older one after
    the machine crashed.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp" if shared else f"{path.name}.tmp")
    with named(path):
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if flush:
                os.fsync(file.fileno())
        temporary.replace(path)


def write_whole(path: Path, text: str, shared: bool = False, flush: bool = True) -> None:
    """A ``whole_file`` of this text, in UTF-8; half a surrogate pair (a byte of a file's name that
    is no text) as its escape, which JSON reads back."""
    with whole_file(path, shared, flush) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
