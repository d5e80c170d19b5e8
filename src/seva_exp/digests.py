"""SHA-256 of files, remembered by (path, size, modification time) so that each is read once."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT
)
"""


class FileDigests:
    """``digests(path)`` gives the hex SHA-256 of a file's bytes; results are kept in the store."""

    def __init__(self, root: Path) -> None:
        self._file = root / "digests.sqlite"
        self._new: dict[str, tuple[int, int, str]] = {}
        self._known: dict[str, tuple[int, int, str]] | None = None

    def __call__(self, path: Path) -> str:
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        name = str(path.absolute())
        known = self._load().get(name)
        if known and known[:2] == stamp:
            return known[2]
        with path.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()
        self._load()[name] = self._new[name] = (*stamp, value)
        return value

    def save(self) -> None:
        """Write what was newly read to the store."""
        if not self._new:
            return
        with closing(self._connect()) as database, database:
            rows = [(name, *values) for name, values in self._new.items()]
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
        self._new.clear()

    def _load(self) -> dict[str, tuple[int, int, str]]:
        if self._known is None:
            self._known = {}
            if self._file.exists():
                with closing(self._connect()) as database:
                    rows = database.execute("SELECT path, size, mtime_ns, sha256 FROM files")
                    self._known = {name: (size, mtime, sha) for name, size, mtime, sha in rows}
        return self._known

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=60)
        database.execute(_TABLE)
        return database
