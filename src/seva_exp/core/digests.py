"""SHA-256 of files, remembered until a file changes, so that each is read once."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import zlib
from contextlib import suppress
from pathlib import Path

from seva_exp.core.disk import named

# The path as bytes, since a file name need not be text.
_TABLE = "CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, stamp TEXT, sha256 TEXT)"


HELD = 10_000
"""Digests that are held until they are written to the store."""


_READ: dict[tuple[int, str], str] = {}
"""Device and stamp -> digest, of the files that this process has read."""


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. This process reads them once while inode, size and times stay;
    under another name, too. Raises OSError."""
    key = path.stat().st_dev, _stamp(path)
    if key not in _READ:
        with named(path), path.open("rb") as file:
            _READ[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _READ[key]


class FileDigests:
    """``digests(path)`` gives the hex SHA-256 of a file's bytes; results are kept in the store.

    What is kept is a cache: when it is damaged it is begun anew, when it cannot be used all files
    are read. Either is said once, in one line on stderr.
    """

    def __init__(self, root: Path) -> None:
        self._file = root / "digests.sqlite"
        self._new: dict[bytes, tuple[str, str]] = {}
        self._open: sqlite3.Connection | None = None
        self._usable = True
        self._warned = False

    def __reduce__(self) -> tuple[type[FileDigests], tuple[Path]]:
        return FileDigests, (self._file.parent,)

    def __call__(self, path: Path) -> str:
        stamp = _stamp(path)
        name = os.fsencode(path.absolute())
        known = self._new.get(name) or self._kept(name)
        if known and known[0] == stamp:
            value, _, checksum = known[1].partition(" ")
            if not checksum or checksum == _checksum(name, stamp, value):  # else it is damaged
                return value
        with path.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()
        self._new[name] = (stamp, value)
        if len(self._new) % HELD == 0:
            with suppress(OSError):  # before a first run there is no store yet
                self._file.parent.mkdir(parents=True, exist_ok=True)
            if self._file.parent.is_dir():
                self.save()
        return value

    def save(self) -> None:
        """Write what was newly read to the store."""
        if not self._new or not self._usable:
            return
        for _ in range(2):  # the second time in place of a damaged file
            try:
                self._write()
                self._new.clear()
                break
            except sqlite3.DatabaseError as error:
                if not self._mend(error):
                    break

    def _kept(self, name: bytes) -> tuple[str, str] | None:
        if not self._usable or not (self._open or self._file.exists()):
            return None
        try:
            found = self._database().execute(
                "SELECT stamp, sha256 FROM digests WHERE path = ?", (name,)
            )
            return found.fetchone()
        except sqlite3.DatabaseError as error:
            self._mend(error)
            return None

    def _write(self) -> None:
        rows = [
            (name, stamp, f"{value} {_checksum(name, stamp, value)}")
            for name, (stamp, value) in self._new.items()
        ]
        self._close()  # another process may have put a new file in its place
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)

    def _database(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = self._connect()
        return self._open

    def _close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=60)
        try:
            database.execute(_TABLE)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _mend(self, error: sqlite3.DatabaseError) -> bool:
        """Delete a damaged file. False: it is not damaged, but locked or not to be written to."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        damaged = not isinstance(error, sqlite3.OperationalError) or code == sqlite3.SQLITE_ERROR
        self._close()
        if damaged:
            # The journals go first: SQLite would write them into the file that comes next.
            for suffix in ("-journal", "-wal", "-shm", ""):
                try:
                    self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
                except OSError:
                    damaged = False
        self._usable = damaged
        if not self._warned:
            self._warned = True
            then = "begun anew" if damaged else "not used"
            print(f"Warning: the cache {self._file} is {then} ({error}).", file=sys.stderr)
        return damaged


def _checksum(name: bytes, stamp: str, value: str) -> str:
    return f"{zlib.crc32(name + f' {stamp} {value}'.encode()):08x}"


def _stamp(path: Path) -> str:
    """Differs when the file may have changed. ``cp -p`` keeps size and modification time, but the
    system sets the time of the last change of status (ctime)."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
