"""A file layer that fails: what a process asks of files below some folders goes wrong at the n-th
time. Python's own calls are intercepted; what libraries do in C is not."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

CHANGES = frozenset({"create", "write", "fsync", "mkdir", "rename", "replace", "symlink", "unlink"})
READS = frozenset({"open", "read", "scandir"})


@dataclass(frozen=True)
class Kind:
    """An errno, what it happens to, and whether it lasts once it has come."""

    number: int
    calls: frozenset[str]
    lasts: bool = False


KINDS = {
    "ENOSPC": Kind(errno.ENOSPC, frozenset({"create", "write", "mkdir", "symlink"}), lasts=True),
    "EROFS": Kind(errno.EROFS, CHANGES - {"write", "fsync"}, lasts=True),
    "EIO": Kind(errno.EIO, CHANGES | READS),
    "EACCES": Kind(errno.EACCES, (CHANGES | READS) - {"write", "fsync", "read"}),
    "EMFILE": Kind(errno.EMFILE, frozenset({"create", "open", "scandir"})),
    "short": Kind(0, frozenset({"write"}), lasts=True),
}


@dataclass
class Layer:
    """Counts the calls below ``folders`` and lets the ``n``-th of them (from 1; 0: none) fail."""

    folders: tuple[Path, ...]
    kind: Kind
    n: int = 0
    count: int = 0
    failed: list[str] = field(default_factory=list)

    def inside(self, path: object) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        text = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        return any(text.startswith(f"{folder}/") for folder in self.folders)

    def meets(self, call: str, path: object) -> bool:
        """Whether this call fails."""
        if call not in self.kind.calls or not self.inside(path):
            return False
        self.count += 1
        comes = self.n and (self.count >= self.n if self.kind.lasts else self.count == self.n)
        if comes:
            self.failed.append(f"{call} {path}")
        return bool(comes)

    def check(self, call: str, path: object) -> None:
        if self.meets(call, path):
            named = path if call not in ("write", "fsync", "read") else None
            raise OSError(self.kind.number, os.strerror(self.kind.number), named)


class _Raw(io.FileIO):
    """A file whose reads and writes go through the layer."""

    def __init__(self, layer: Layer, file: object, mode: str) -> None:
        self._layer = layer
        super().__init__(file, mode)  # type: ignore[arg-type]

    def write(self, data) -> int:
        if self._layer.kind.number == 0:
            short = len(data) > 1 and self._layer.meets("write", self.name)
            return super().write(bytes(data)[: len(data) // 2] if short else data)
        self._layer.check("write", self.name)
        return super().write(data)

    def readinto(self, buffer) -> int:
        self._layer.check("read", self.name)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._layer.check("read", self.name)
        return super().readall()


def _opener(layer: Layer, real):
    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *rest, **kw):
        if isinstance(file, int) or not layer.inside(file) or kw.get("opener"):
            return real(file, mode, buffering, encoding, errors, newline, *rest, **kw)
        writes = any(letter in mode for letter in "wax+")
        layer.check("create" if writes else "open", file)
        raw = _Raw(layer, os.fspath(file), mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        if "+" in mode:
            buffered = io.BufferedRandom(raw)
        elif writes:
            buffered = io.BufferedWriter(raw)
        else:
            buffered = io.BufferedReader(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline)

    return opened


def _guard(layer: Layer, call: str, real):
    def guarded(path, *args, **options):
        if not options.get("dir_fd") and isinstance(path, str | bytes | os.PathLike | int):
            name = call
            if call == "open":
                flags = args[0] if args else 0
                name = "create" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "open"
            layer.check(name, args[0] if call == "symlink" else path)
        return real(path, *args, **options)

    return guarded


@contextmanager
def failing(folders: tuple[Path, ...], kind: str, n: int = 0) -> Iterator[Layer]:
    """The layer at work."""
    layer = Layer(folders, KINDS[kind], n)
    with patch.multiple(
        os,
        open=_guard(layer, "open", os.open),
        mkdir=_guard(layer, "mkdir", os.mkdir),
        rename=_guard(layer, "rename", os.rename),
        replace=_guard(layer, "replace", os.replace),
        unlink=_guard(layer, "unlink", os.unlink),
        symlink=_guard(layer, "symlink", os.symlink),
        scandir=_guard(layer, "scandir", os.scandir),
        fsync=_guard(layer, "fsync", os.fsync),
    ):
        opened = _opener(layer, io.open)
        with patch.object(io, "open", opened), patch.object(builtins, "open", opened):
            yield layer
