"""The work of one stage, shared by processes of this machine or of several: who does which piece of
it, by leases, and what each has done.

In ``parts/``: ``rank-N.lock`` is held by process N as long as it lives, ``claims.jsonl`` tells who
took which pieces, ``journal-N.jsonl`` what a process has of those that it works on, and
``before.jsonl`` what those of earlier attempts had. A claim ends with the process: what a dead one
had taken is open again, and whoever takes it reads the dead one's journal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from filelock import FileLock, Timeout

from seva_exp.core.files import whole_file
from seva_exp.core.spec import Json
from seva_exp.core.store import PARTS, RANK_LOCK, Journal, journal_line, read_journal

BEFORE, CLAIMS, LOCK, JOURNALS = "before.jsonl", "claims.jsonl", "claims.lock", "journal-{}.jsonl"
POLL = 0.2
"""Seconds between two looks at what others have taken."""


@dataclass(frozen=True)
class ClaimedPieces:
    """Numbers of pieces, and the processes that had taken some of them before and died."""

    pieces: tuple[int, ...] = ()
    heir_of: tuple[int, ...] = ()


class Sharing:
    """The part that process ``rank`` of about ``ranks`` has in the work done in ``work``."""

    def __init__(self, work: Path, rank: int = 0, ranks: int = 1) -> None:
        self.folder = work / PARTS
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rank = rank
        self._ranks = ranks

    def begin(self, keep: Callable[[Json], bool] = lambda row: True) -> None:
        """Called before any process works: nothing is taken, and what journals have of rows to
        ``keep`` is in one file."""
        (self.folder / CLAIMS).write_bytes(b"")
        for lock in self.folder.glob(RANK_LOCK.format("[0-9]*")):
            lock.unlink()
        journals = sorted(self.folder.glob("journal*.jsonl"))
        files = [self.folder / BEFORE, *journals]
        rows = [row for file in files for row in read_journal(file) if keep(row)]
        with whole_file(self.folder / BEFORE) as file:
            file.write(journal_line(rows))
        for journal in journals:
            journal.unlink()

    def take(self, sizes: Mapping[int, int], most: float = inf) -> ClaimedPieces:
        """The pieces that this process does next, of those with these sizes, ``most`` of it at
        once; none when all are done. What it took before is done by that. The less is left, the
        less is taken, so that all end together. Waits while others do the rest: what a process that
        dies had taken, this one takes."""
        while True:
            with FileLock(self.folder / LOCK):
                claims = self._claims()
                owners = {piece: rank for rank, pieces in claims for piece in pieces}
                latest = dict(claims)
                others = {
                    piece: rank
                    for piece, rank in owners.items()
                    if rank != self.rank and piece in latest[rank]
                }
                alive = {rank for rank in set(others.values()) if self.lives(rank)}
                lost = {piece for piece, rank in others.items() if rank not in alive}
                left = {n: size for n, size in sizes.items() if n in lost or n not in owners}
                pieces = _portion(left, self._ranks, most)
                if pieces or latest.get(self.rank):
                    self._claim(pieces)
                if pieces or not alive:
                    heirs = {rank for rank, had in claims if lost & set(had) & set(pieces)}
                    return ClaimedPieces(pieces, tuple(sorted(heirs)))
            time.sleep(POLL)

    def latest(self, rank: int) -> list[int]:
        """The pieces that a process took last."""
        return next((had for who, had in reversed(self._claims()) if who == rank and had), [])

    def lives(self, rank: int) -> bool:
        """Whether the process holds its lock."""
        return is_held(self.folder / RANK_LOCK.format(rank))

    def journal(self) -> Journal:
        """Of this process."""
        return Journal(self.folder, JOURNALS.format(self.rank))

    def before(self) -> Iterator[Json]:
        """What processes of earlier attempts had."""
        return read_journal(self.folder / BEFORE)

    def inherited(self, taken: ClaimedPieces) -> Iterator[Json]:
        """What is in the journals of those whose pieces were taken over."""
        for rank in taken.heir_of:
            yield from read_journal(self.folder / JOURNALS.format(rank))

    def rows(self) -> Iterator[Json]:
        """What all have done."""
        yield from self.before()
        for file in sorted(self.folder.glob(JOURNALS.format("*"))):
            yield from read_journal(file)

    def _claims(self) -> list[tuple[int, list[int]]]:
        """Who took what, in turn."""
        lines = (self.folder / CLAIMS).read_text().splitlines()
        return [(rank, pieces) for rank, pieces in map(json.loads, lines)]

    def _claim(self, pieces: tuple[int, ...]) -> None:
        with (self.folder / CLAIMS).open("a") as file:
            file.write(json.dumps([self.rank, pieces]) + "\n")


def _portion(left: Mapping[int, int], ranks: int, most: float) -> tuple[int, ...]:
    """The first pieces: for one process as many as it takes at once, for several half of what each
    would get."""
    if ranks > 1:
        most = min(most, sum(left.values()) // (2 * ranks))
    taken: list[int] = []
    size = 0
    for piece, more in left.items():
        if taken and size + more > most:
            break
        taken.append(piece)
        size += more
    return tuple(taken)


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock. Nothing is written, so that it can be asked of a file that
    may only be read. Raises OSError where it may not be."""
    if not lock.exists():
        return False
    try:
        import fcntl
    except ImportError:  # Windows
        return _is_held_elsewhere(lock)
    with lock.open("rb") as file:
        try:  # shared: two who ask do not take each other for a holder
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _is_held_elsewhere(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def alive(parts: Path, rank: int | None) -> Iterator[int]:
    """This process works as ``rank`` as long as the block runs; None: under the first number that
    none has had since the work began."""
    if rank is None:
        with FileLock(parts / LOCK):
            rank = len([*parts.glob(RANK_LOCK.format("[0-9]*"))])
            lock = FileLock(parts / RANK_LOCK.format(rank))
            lock.acquire()
    else:
        lock = FileLock(parts / RANK_LOCK.format(rank))
        lock.acquire()
    try:
        yield rank
    finally:
        lock.release()
