"""SHA-256 of files, remembered until a file changes, so that each is read once."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

# The path as bytes, since a file name need not be text.
_TABLE = "CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, stamp TEXT, sha256 TEXT)"


class FileDigests:
    """``digests(path)`` gives the hex SHA-256 of a file's bytes; results are kept in the store.

    What is kept is a cache: when it is damaged it is begun anew, when it cannot be used all files
    are read. Either is said once, in one line on stderr.
    """

    def __init__(self, root: Path) -> None:
        self._file = root / "digests.sqlite"
        self._new: dict[bytes, tuple[str, str]] = {}
        self._known: dict[bytes, tuple[str, str]] | None = None
        self._warned = False

    def __call__(self, path: Path) -> str:
        stamp = _stamp(path)
        name = os.fsencode(path.absolute())
        known = self._load().get(name)
        if known and known[0] == stamp:
            return known[1]
        with path.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()
        self._load()[name] = self._new[name] = (stamp, value)
        return value

    def save(self) -> None:
        """Write what was newly read to the store."""
        if not self._new:
            return
        for _ in range(2):  # the second time in place of a damaged file
            try:
                self._write()
                break
            except sqlite3.DatabaseError as error:
                if not self._mend(error):
                    break
        self._new.clear()

    def _load(self) -> dict[bytes, tuple[str, str]]:
        if self._known is None:
            try:
                self._known = self._read()
            except sqlite3.DatabaseError as error:
                self._mend(error)
                self._known = {}
        return self._known

    def _read(self) -> dict[bytes, tuple[str, str]]:
        if not os.path.exists(self._file):
            return {}
        with closing(self._connect()) as database:
            rows = database.execute("SELECT path, stamp, sha256 FROM digests")
            return {name: (stamp, sha256) for name, stamp, sha256 in rows}

    def _write(self) -> None:
        rows = [(name, *values) for name, values in self._new.items()]
        with closing(self._connect()) as database, database:
            database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)

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
        if damaged:
            # The journals go first: SQLite would write them into the file that comes next.
            for suffix in ("-journal", "-wal", "-shm", ""):
                try:
                    self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
                except OSError:
                    damaged = False
        if not self._warned:
            self._warned = True
            then = "begun anew" if damaged else "not used"
            print(f"Warning: the cache {self._file} is {then} ({error}).", file=sys.stderr)
        return damaged


def _stamp(path: Path) -> str:
    """Differs when the file may have changed. ``cp -p`` keeps size and modification time, but the
    system sets the time of the last change of status (ctime)."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
