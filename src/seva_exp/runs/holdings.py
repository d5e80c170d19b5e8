"""What a store holds and which runs stand on it: an artifact stays as long as a run names it, or
names what was made from it. Light: manifests and folders are read, no artifact."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from seva_exp.core.errors import InputError
from seva_exp.core.paths import MARKER
from seva_exp.core.sharing import is_held
from seva_exp.core.spec import Json
from seva_exp.core.store import FORCED, KEY_LENGTH, MANIFEST, PARTIAL, PARTS, RANK_LOCK
from seva_exp.runs.links import followed
from seva_exp.runs.listing import RunFolder, Unreadable, runs_in
from seva_exp.runs.removal import bytes_of

USED_BY = "used_by.txt"
"""In a store: the folders of runs that use it, a line each."""
GONE, OLD = ".removed", ".old"
"""What the name of an artifact's folder ends in while it is removed, or replaced."""
_ENTRY = re.compile(
    rf"([0-9a-f]{{{KEY_LENGTH}}})"
    rf"({re.escape(PARTIAL)}|{re.escape(FORCED)}|\.old|\.removed"
    r"|(?:\.partial|\.forced)?\.(?:damaged|newer)-\d{8}-\d{6}(?:-\d+)?)?"
)


def note_use(store: Path, runs: Path) -> None:
    """Write down that a folder of runs uses a store, so that what its runs name stays there. A
    store that may only be read is another's."""
    line = f"{runs.absolute()}\n"
    with suppress(OSError):
        file = store / USED_BY
        known = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
        if store.is_dir() and line not in known.splitlines(keepends=True):
            with file.open("a", encoding="utf-8", errors="surrogateescape") as out:
                out.write(line)


def used_by(store: Path) -> list[Path]:
    """The folders of runs that use a store, as far as it was written down."""
    try:
        text = (store / USED_BY).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    return [Path(line) for line in dict.fromkeys(text.splitlines()) if line]


@dataclass(frozen=True)
class Held:
    """A folder in a stage's folder of the store. ``how``: empty for a finished artifact, else what
    its name says: ``.partial``, ``.forced``, ``.old``, ``.removed``, ``.damaged-...``."""

    path: Path
    stage: str
    key: str
    how: str

    @cached_property
    def size(self) -> int:
        """Bytes of its files, each looked at."""
        return bytes_of(self.path)

    @cached_property
    def told(self) -> Json:
        """Its manifest, unchecked; empty where there is none that can be read."""
        try:
            row = json.loads((self.path / MANIFEST).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return row if isinstance(row, dict) else {}

    @property
    def told_size(self) -> int:
        """Bytes of its files as its manifest has them: without pictures that were drawn."""
        files = self.told.get("files")
        sizes = files.values() if isinstance(files, dict) else ()
        return sum(size for size in sizes if isinstance(size, int))

    @property
    def inputs(self) -> list[str]:
        """The first characters of the keys that it was made from."""
        inputs = self.told.get("inputs")
        keys = inputs.values() if isinstance(inputs, dict) else ()
        return [key[:KEY_LENGTH] for key in keys if isinstance(key, str)]

    @cached_property
    def changed(self) -> float:
        """When something in it was last written: seconds since 1970."""
        times = [0.0]
        for place in (self.path, self.path / PARTS):
            with suppress(OSError), os.scandir(place) as entries:
                times += [one.stat(follow_symlinks=False).st_mtime for one in entries]
        with suppress(OSError):
            times.append(self.path.lstat().st_mtime if not times[1:] else 0.0)
        return max(times)

    @property
    def lock(self) -> Path:
        """The file that a process locks that makes it."""
        return self.path.parents[1] / "locks" / f"{self.stage}-{self.key}.lock"

    @property
    def in_use(self) -> bool:
        """Whether a process makes it, or helps to. What may not be looked at counts as yes."""
        try:
            return is_held(self.lock) or self.helped
        except OSError:
            return True

    @property
    def helped(self) -> bool:
        """Whether processes work on it that another has started, which may be dead."""
        places = [self.path.with_name(self.key + how) for how in (PARTIAL, FORCED)]
        ranks = (lock for one in places for lock in one.glob(f"{PARTS}/{RANK_LOCK.format('*')}"))
        return any(map(is_held, ranks))


class Holdings:
    """What is in a store, and the runs that name it: those of the ``roots``, of which the store
    knows more itself. Raises InputError for what is no store, and where it cannot be known what is
    named: a folder of runs that is gone (but for those ``forgotten``), a run that is unreadable.
    For a list, not ``strict``, the ``roots`` do, and what is unreadable names nothing."""

    def __init__(
        self,
        store: Path,
        roots: Sequence[Path],
        forgotten: Iterable[Path] = (),
        strict: bool = True,
    ) -> None:
        self._strict = strict
        self.root = followed(store)
        if not self.root.is_dir():
            raise InputError(f"--store {store}: no such folder.")
        if not (self.root / MARKER).exists() or not (self.root / "locks").is_dir():
            raise InputError(f"--store {store}: is no store of seva_exp.")
        forgot = {followed(one.absolute()) for one in forgotten}
        known = [*roots, *(used_by(self.root) if strict else ())]
        self.roots = [one for one in dict.fromkeys(map(followed, known)) if one not in forgot]
        for one in self.roots:
            if not one.is_dir():
                raise InputError(
                    f"{one}: runs in this folder used the store, and it is not there. If it is on "
                    f"another disk, attach it; if it was deleted, add --forget {one}."
                )
        self.left_alone: list[Path] = []
        """Links in the place of stages' folders."""

    @cached_property
    def runs(self) -> list[RunFolder]:
        """All runs of the roots, and those that sweeps in them tell of."""
        found = {run.path: run for root in self.roots for run in runs_in(root)}
        for root in self.roots if self._strict else ():
            for path in _of_sweeps(root):
                if path not in found and path.is_dir():
                    found[path] = RunFolder(path)
        return list(found.values())

    @cached_property
    def held(self) -> list[Held]:
        """All artifacts, finished or not. A stage's folder that is a link is left alone."""
        found = []
        for folder in sorted(self.root.iterdir()):
            if not folder.is_dir() or folder.name in ("locks", "replies", "tracking"):
                continue
            if folder.is_symlink():
                self.left_alone.append(folder)
                continue
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    match = _ENTRY.fullmatch(entry.name)
                    if match and entry.is_dir(follow_symlinks=False):
                        how = match[2] or ""
                        found.append(Held(Path(entry.path), folder.name, match[1], how))
        return found

    @cached_property
    def _by_key(self) -> dict[str, list[Held]]:
        found: dict[str, list[Held]] = {}
        for one in self.held:
            if one.how not in (GONE, OLD):
                found.setdefault(one.key, []).append(one)
        return found

    def closure(self, keys: Iterable[str]) -> set[str]:
        """These keys and those of all that they were made from."""
        found: set[str] = set()
        left = list(keys)
        while left:
            key = left.pop()
            if key not in found:
                found.add(key)
                left += [source for one in self._by_key.get(key, ()) for source in one.inputs]
        return found

    @cached_property
    def by_run(self) -> dict[Path, set[str]]:
        """The folder of each run -> the keys that it stands on. Raises Unreadable."""
        found = {}
        for run in self.runs:
            try:
                found[run.path] = self.closure(run.named())
            except Unreadable as error:
                if self._strict:
                    raise InputError(f"{error} What this run stands on cannot be told.") from None
        return found

    @cached_property
    def named(self) -> set[str]:
        """All keys that a run stands on."""
        return set().union(*self.by_run.values())

    def whole(self, keys: Iterable[str]) -> Iterator[Held]:
        """The finished artifacts of these keys."""
        for key in keys:
            yield from (one for one in self._by_key.get(key, ()) if not one.how)


def _of_sweeps(root: Path) -> Iterator[Path]:
    """The folders of runs that the jobs of sweeps below a folder of runs have ended with."""
    for pattern in ("jobs", "*/jobs", "*/*/jobs", "*/*/*/jobs"):
        for folder in root.glob(pattern):
            for file in folder.glob("*.json") if not folder.is_symlink() else ():
                with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
                    run = json.loads(file.read_bytes())["ended"]["run"]
                    if run:
                        yield followed(Path(run))
