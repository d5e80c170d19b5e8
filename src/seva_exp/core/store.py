"""The content-addressed store: key, lock, work in a partial folder, manifest last, rename.

``<root>/<stage>/<key>/`` holds one finished artifact; it exists if and only if it is complete.
``<root>/<stage>/<key>.partial/`` is work in progress: a killed run leaves it, the next one goes on
in it. What only the work in progress needs lies in its folder ``parts/`` or in its journal, and is
deleted with the last step. ``<root>/locks/`` holds one lock file per artifact, released by the
system when a process dies.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from seva_exp.core.errors import InputError
from seva_exp.core.files import write_whole
from seva_exp.core.paths import MARKER
from seva_exp.core.spec import Json

MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"
PARTS = "parts"
RANK_LOCK = "rank-{}.lock"
"""In ``parts``: held by a process of several that do a stage's work together."""
KEY_LENGTH = 20
"""Hex characters of the key in folder names (80 bits); the manifest holds all 64."""


@dataclass(frozen=True)
class Manifest:
    """Written last into an artifact: everything that its key was made of, and how it was made."""

    stage: str
    version: int
    key: str
    spec: Json
    inputs: dict[str, str]
    environment: Json
    seconds: float
    summary: Json = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    """Sizes in bytes of the artifact's files, so that a damaged one is seen and made again."""


class Store:
    """Artifacts by stage and key below one folder. Safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    def create(self) -> Store:
        """Make the folder if need be. Raises InputError when it cannot be written to."""
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            (self.root / MARKER).touch()
            writable = os.access(self.root, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            raise InputError(
                f"machine.store={self.root}: cannot write to this folder. Give another "
                "(machine.store=DIR or $SEVA_EXP_STORE)."
            )
        return self

    def path(self, stage: str, key: str) -> Path:
        """Where the artifact lies, finished or not yet."""
        return self.root / stage / key[:KEY_LENGTH]

    def find(self, stage: str, key: str) -> Manifest | None:
        """The manifest of a finished artifact, or None."""
        file = self.path(stage, key) / MANIFEST
        try:
            manifest = Manifest(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        whole = manifest.files == file_sizes(file.parent)
        return manifest if manifest.key == key and whole else None

    def make(
        self,
        manifest: Callable[[float, Json], Manifest],
        stage: str,
        key: str,
        work: Callable[[Path], Json],
        *,
        force: bool = False,
        on_start: Callable[[], None] = lambda: None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> tuple[Manifest, bool]:
        """Return the artifact's manifest and whether it was there already.

        ``work(folder)`` fills the partial folder and returns the summary; it may find there what
        an interrupted attempt left. ``manifest(seconds, summary)`` describes the result. With
        ``force`` it is made anew and the old artifact replaced only at the end.
        """
        if not force and (found := self.find(stage, key)):
            return found, True
        with self._locked(stage, key, on_wait):
            if not force and (found := self.find(stage, key)):
                return found, True
            on_start()
            # A forced attempt has a folder of its own: it goes on in no other attempt's work.
            partial = self.path(stage, key).with_suffix(".forced" if force else ".partial")
            partial.mkdir(parents=True, exist_ok=True)
            _outlive(partial / PARTS)
            start = time.monotonic()
            summary = work(partial)
            done = manifest(time.monotonic() - start, summary)
            done = replace(done, files=file_sizes(partial))
            write_whole(partial / MANIFEST, json.dumps(asdict(done), indent=2, ensure_ascii=False))
            self._publish(partial, self.path(stage, key))
            return done, False

    def _publish(self, partial: Path, final: Path) -> None:
        """Put the finished folder in its place; an old one (forced run, damage) moves aside."""
        old = final.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        partial.rename(final)
        shutil.rmtree(old, ignore_errors=True)
        (final / JOURNAL).unlink(missing_ok=True)  # only now is it not needed any more
        shutil.rmtree(final / PARTS, ignore_errors=True)

    @contextmanager
    def _locked(self, stage: str, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / "locks" / f"{stage}-{key[:KEY_LENGTH]}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _outlive(parts: Path) -> None:
    """Waits for processes of a killed run that have not noticed yet that it was."""
    from filelock import FileLock

    for file in parts.glob(RANK_LOCK.format("*")):
        with FileLock(file):
            continue


def file_sizes(artifact: Path) -> dict[str, int]:
    """Name -> bytes of the files whose damage would be silent (no pictures, no bookkeeping)."""
    found = [*artifact.glob("*.json*"), *artifact.glob("adapter/*")]
    kept = (file for file in found if file.name not in (MANIFEST, JOURNAL))
    return {str(f.relative_to(artifact)): f.stat().st_size for f in sorted(kept)}


class Journal:
    """An append-only file of finished batches. One line is one batch, so a kill loses at most the
    batch that was being written; a torn last line is cut off when the journal is opened again."""

    def __init__(self, work: Path, name: str = JOURNAL) -> None:
        self.path = work / name
        self.rows = list(read_journal(self.path))
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(len(_whole(file.read())))

    def append(self, rows: list[Json]) -> None:
        """Add one finished batch and flush it to disk."""
        line = json.dumps(rows, ensure_ascii=False, separators=(",", ":")) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows.extend(rows)


def read_journal(path: Path) -> Iterator[Json]:
    """The rows of a journal that another process may be writing; none where there is no file."""
    if path.exists():
        for line in _whole(path.read_bytes()).splitlines():
            yield from json.loads(line)


def _whole(content: bytes) -> bytes:
    """Without a torn last line."""
    return content[: content.rfind(b"\n") + 1]
