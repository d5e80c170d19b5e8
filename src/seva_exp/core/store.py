"""The content-addressed store: key, lock, work in a partial folder, manifest last, rename.

``<root>/<stage>/<key>/`` holds one finished artifact; it exists if and only if it is complete.
``<root>/<stage>/<key>.partial/`` is work in progress: a killed run leaves it, the next one goes on
in it. What only the work in progress needs lies in its folder ``parts/`` or in its journal, and is
deleted with the last step. ``<root>/locks/`` holds one lock file per artifact, released by the
system when a process dies. An artifact that is not what its manifest says is renamed to
``<key>.damaged-<time>`` and made again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from seva_exp.core.disk import named, set_aside, warn_of_damage
from seva_exp.core.errors import InputError
from seva_exp.core.manifest import MANIFEST as MANIFEST
from seva_exp.core.manifest import Fault, Newer, check, check_size, is_there, read_manifest
from seva_exp.core.manifest import Manifest as Manifest
from seva_exp.core.paths import MARKER
from seva_exp.core.spec import Json

JOURNAL = "journal.jsonl"
PARTS = "parts"
PARTIAL, FORCED = ".partial", ".forced"
"""What the name of a folder ends in in which an artifact is made, or is made anew."""
RANK_LOCK = "rank-{}.lock"
"""In ``parts``: held by a process of several that do a stage's work together, and (``work``) by
the one that started them."""
KEY_LENGTH = 20
"""Hex characters of the key in folder names (80 bits); the manifest holds all 64."""


class Store:
    """Artifacts by stage and key below one folder. Safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    def create(self) -> Store:
        """Make the folder if need be. Raises InputError when it cannot be written to."""
        why = "Permission denied"
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            (self.root / MARKER).touch()
            writable = os.access(self.root, os.W_OK)
        except OSError as error:
            writable, why = False, error.strerror or str(error)
        if not writable:
            raise InputError(
                f"machine.store={self.root}: cannot write to this folder ({why}). Give another "
                "(machine.store=DIR or $SEVA_EXP_STORE)."
            )
        return self

    def path(self, stage: str, key: str) -> Path:
        """Where the artifact lies, finished or not yet."""
        return self.root / stage / key[:KEY_LENGTH]

    def artifacts(self) -> Iterator[Path]:
        """The folders of all finished artifacts, damaged ones too."""
        for path in sorted(self.root.glob(f"*/{'[0-9a-f]' * KEY_LENGTH}")):
            if path.is_dir():
                yield path

    def find(self, stage: str, key: str) -> Manifest | None:
        """The manifest of a finished artifact whose files are there in their sizes, or None. Raises
        InputError for one that may not be read."""
        folder = self.path(stage, key)
        try:
            manifest = read_manifest(folder)
            for name in manifest.files:
                check_size(folder, manifest, name)
        except Fault:
            return None
        return manifest if manifest.key == key else None

    def whole(self, stage: str, key: str, large: bool = True) -> Manifest | None:
        """The manifest of an artifact that is there as it was written (``fault``), or None. Raises
        InputError for one that may not be read."""
        found = self.find(stage, key)
        return found if found and not self.fault(stage, key, large) else None

    def fault(self, stage: str, key: str, large: bool = True) -> Fault | None:
        """Why an artifact that is there cannot be used, by sizes and digests (of LARGE files only
        where ``large``); None where it can, and where there is none. Raises InputError for what may
        not be read."""
        folder = self.path(stage, key)
        if not is_there(folder):
            return None
        try:
            found = check(folder, large)
        except Fault as fault:
            return fault
        return None if found.key == key else Fault(f"{MANIFEST} is that of another key")

    def make(
        self,
        manifest: Callable[[float, Json], Manifest],
        stage: str,
        key: str,
        work: Callable[[Path], Json],
        *,
        force: bool = False,
        large: bool = False,
        on_start: Callable[[], None] = lambda: None,
        on_wait: Callable[[], None] = lambda: None,
        on_damage: Callable[[str], None] = warn_of_damage,
    ) -> tuple[Manifest, bool]:
        """Return the artifact's manifest and whether it was there already.

        ``work(folder)`` fills the partial folder and returns the summary; it may find there what
        an interrupted attempt left. ``manifest(seconds, summary)`` describes the result. With
        ``force`` it is made anew and the old artifact replaced only at the end. One that is there
        and damaged (``large``: its LARGE files are looked at, too) is set aside, and
        ``on_damage`` told.
        """
        if not force and (found := self.whole(stage, key, large)):
            return found, True
        # A forced attempt has a folder of its own: it goes on in no other attempt's work.
        partial = self.path(stage, key).with_suffix(FORCED if force else PARTIAL)
        lock = self.root / "locks" / f"{stage}-{key[:KEY_LENGTH]}.lock"
        with _held(lock, on_wait), _alone_in(partial, on_wait):
            if not force and (found := self.whole(stage, key, large)):
                _remove_empty(partial)
                return found, True
            if not force:
                self.withdraw(stage, key, large, on_damage)
            on_start()
            return self._made(partial, self.path(stage, key), manifest, work), False

    def _made(
        self,
        partial: Path,
        final: Path,
        manifest: Callable[[float, Json], Manifest],
        work: Callable[[Path], Json],
    ) -> Manifest:
        start = time.monotonic()
        summary = work(partial)
        for left in partial.rglob("*.tmp"):  # of a write that an earlier attempt did not finish
            left.unlink()
        done = manifest(time.monotonic() - start, summary).sealed(partial)
        done.write(partial)
        open_to_others(partial, partial / MANIFEST)
        self._publish(partial, final)
        return done

    def withdraw(
        self, stage: str, key: str, large: bool, on_damage: Callable[[str], None], why: str = ""
    ) -> None:
        """Rename an artifact that cannot be used, by its fault or ``why``."""
        fault = self.fault(stage, key, large)
        if why or fault:
            how = "newer" if isinstance(fault, Newer) else "damaged"
            aside = set_aside(self.path(stage, key), how)
            on_damage(f"{why or fault}; set aside as {aside}, and recomputed")

    def _publish(self, partial: Path, final: Path) -> None:
        """Put the finished folder in its place; an old one (forced run) moves aside."""
        old = final.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            if _is_newer(final):
                set_aside(final, "newer")
            else:
                final.rename(old)
        partial.rename(final)
        shutil.rmtree(old, ignore_errors=True)
        with suppress(OSError):  # only now is it not needed any more, and it does no harm
            (final / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(final / PARTS, ignore_errors=True)


@contextmanager
def _held(file: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _alone_in(partial: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """The only process that works in the folder, even where the file in ``locks/`` was deleted
    while another held it: there is a second one in the folder itself. Waits for processes of a
    killed run that have not noticed yet that it was."""
    own = partial / PARTS / RANK_LOCK.format("work")
    with ExitStack() as held:
        while True:
            try:
                (partial / PARTS).mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:  # another has put it in its place between the two folders
                continue
            try:
                held.enter_context(_held(own, on_wait))
                break
            except (FileNotFoundError, FileExistsError):  # another has just put it in its place
                continue
        for file in own.parent.glob(RANK_LOCK.format("*")):
            if file != own:
                with _held(file, lambda: None):
                    continue
        yield


def _remove_empty(partial: Path) -> None:
    """A folder that was made to wait in."""
    with suppress(OSError):
        (partial / PARTS / RANK_LOCK.format("work")).unlink()
        (partial / PARTS).rmdir()
        partial.rmdir()


def open_to_others(folder: Path, like: Path) -> None:
    """Files get the mode of ``like``, which the process's umask gave: libraries that write by a
    temporary file leave them to their owner alone."""
    mode = stat.S_IMODE(like.stat().st_mode)
    for file in folder.rglob("*"):
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) != mode:
            with suppress(PermissionError):  # another's, of an attempt that was killed
                file.chmod(mode)


def _is_newer(artifact: Path) -> bool:
    try:
        read_manifest(artifact)
    except Newer:
        return True
    except Fault:
        return False
    return False


class Journal:
    """An append-only file of finished batches. One line is one batch, with a checksum behind it: a
    kill loses at most the batch that was being written, and a damaged one is made again. A torn
    last line is cut off when the journal is opened again."""

    def __init__(self, work: Path, name: str = JOURNAL) -> None:
        self.path = work / name
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(sum(map(len, _whole_lines(file))))

    def append(self, rows: list[Json]) -> None:
        """Add one finished batch and flush it to disk; where that fails, the part of it that was
        written is no line."""
        line = journal_line(rows)
        with named(self.path), self.path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(start)
                raise


SUM = re.compile(rb',"(.{5})":"(.{8})"}]')
"""The end of a journal's line: in its last row ``crc32``, of the line without it."""
SUM_LENGTH = 21


def journal_line(rows: list[Json]) -> bytes:
    """One batch as a line of JSON, with its checksum."""
    line = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    end = f',"crc32":"{zlib.crc32(line):08x}"}}]'.encode() if line.endswith(b"}]") else line[-2:]
    return line[:-2] + end + b"\n"


def read_journal(path: Path) -> Iterator[Json]:
    """The rows of a journal that another process may be writing, a line of them held at a time;
    none where there is no file. Of damaged lines it is told, and they are left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(_whole_lines(file), 1):
            rows = _rows(line[:-1])
            if rows is None:
                warn_of_damage(f"{path}, line {number}: is damaged; what it held is recomputed")
            yield from rows or ()


def _rows(line: bytes) -> list[Json] | None:
    """None for a damaged line. One from before there were checksums has none."""
    end = line[-SUM_LENGTH:]
    found = SUM.fullmatch(end)
    if found or b"crc32" in end:
        line = line[:-SUM_LENGTH] + b"}]"
        if not found or found[1] != b"crc32" or found[2] != f"{zlib.crc32(line):08x}".encode():
            return None
    try:
        rows = json.loads(line)
    except ValueError:
        return None
    listed = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return rows if listed else None


def _whole_lines(file: Iterable[bytes]) -> Iterator[bytes]:
    """Without a torn last one."""
    return (line for line in file if line.endswith(b"\n"))
