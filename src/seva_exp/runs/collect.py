"""Garbage collection of a store: what no run names, found first, removed when a person says so."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from seva_exp.core.errors import InputError
from seva_exp.core.printable import error_text
from seva_exp.runs.holdings import GONE, OLD, Held, Holdings
from seva_exp.runs.links import followed, write_link
from seva_exp.runs.listing import PLAN, REMOVED, RunFolder, runs_in
from seva_exp.runs.removal import remove_folder

DAY = 86400.0


@dataclass
class Garbage:
    """What may be removed, and why the rest stays."""

    found: list[Held]
    runs: int
    kept: int
    in_use: list[Held] = field(default_factory=list)
    young: list[Held] = field(default_factory=list)
    """Of less than the days to keep."""
    left_alone: list[Path] = field(default_factory=list)
    half: list[Path] = field(default_factory=list)
    """Folders of runs whose removal was killed."""

    @property
    def size(self) -> int:
        return sum(one.size for one in self.found)


@dataclass
class Removed:
    """What a collection removed, in how many bytes, and what it could not, a line each."""

    count: int = 0
    bytes: int = 0
    kept: list[str] = field(default_factory=list)


def garbage(holdings: Holdings, keep_days: float = 0.0, now: float | None = None) -> Garbage:
    """What no run names: artifacts, finished or not, and what was set aside as damaged. What a
    process works on stays, and what was written within the days."""
    named, limit = holdings.named, (time.time() if now is None else now) - keep_days * DAY
    result = Garbage([], len(holdings.runs), 0)
    for one in holdings.held:
        if one.key in named and _matters(one):
            result.kept += 1
        elif one.in_use:
            result.in_use.append(one)
        elif keep_days and one.how != GONE and one.changed > limit:
            result.young.append(one)
        else:
            result.found.append(one)
    result.left_alone = holdings.left_alone
    result.half = [path for root in holdings.roots for path in _half_removed(root)]
    return result


def _matters(one: Held) -> bool:
    """Whether a run that names its key could use it. One that was to be replaced is all there is
    where its successor never came."""
    if one.how == OLD:
        return not one.path.with_name(one.key).exists()
    return one.how != GONE and ".damaged-" not in one.how


def _half_removed(root: Path) -> Iterator[Path]:
    for path in root.iterdir():
        if path.name.startswith(REMOVED) and path.is_dir() and not path.is_symlink():
            yield path


def collect(holdings: Holdings, what: Garbage) -> Removed:
    """Remove it. Before each artifact it is looked whether a run has begun meanwhile, and its lock
    is held; what one names, or another process works on, stays."""
    done, begun = Removed(), _Begun(holdings)
    for one in what.found:
        if one.key in begun.named() and _matters(one):
            done.kept.append(f"{one.path}: a run that has just begun names it")
            continue
        try:
            size = one.size
            _remove(one, holdings.root)
        except FileNotFoundError:  # another collection was quicker
            continue
        except Timeout:
            done.kept.append(f"{one.path}: a process works on it")
            continue
        except (OSError, InputError) as error:
            done.kept.append(f"{one.path}: {error_text(error)}")
            continue
        done.count, done.bytes = done.count + 1, done.bytes + size
    for path in what.half:
        try:
            remove_folder(path, path.parent, path.name)
        except OSError as error:
            done.kept.append(f"{path}: {error_text(error)}")
    return done


def _remove(one: Held, root: Path) -> None:
    with FileLock(one.lock, timeout=0):
        if one.how != GONE and one.helped:
            raise Timeout(os.fspath(one.lock))
        remove_folder(one.path, root, f"{one.key}{GONE}")


class _Begun:
    """The runs that begin while garbage is collected."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._known = set(holdings.by_run)
        self._stamps: dict[Path, int] = {}
        self._named: set[str] = set()

    def named(self) -> set[str]:
        """The keys that they stand on."""
        for root in self._holdings.roots:
            stamp = root.stat().st_mtime_ns
            if self._stamps.get(root) == stamp:
                continue
            new = [run for run in runs_in(root) if run.path not in self._known]
            for run in new:
                self._named |= self._holdings.closure(run.named())
            # One that has not written its plan yet is looked at again.
            whole = [
                run.path for run in new if (run.path / PLAN).exists() or run.state != "running"
            ]
            self._known.update(whole)
            if len(whole) == len(new):
                self._stamps[root] = stamp
        return self._named


def remove_run(run: RunFolder) -> None:
    """Its folder, not what it stands on in the store. Raises InputError for one that works, OSError
    where the system refuses."""
    if run.state == "running":
        raise InputError(f"{run.path.name}: this run is at work. End it first (Ctrl-C).")
    root = run.path.parent
    remove_folder(run.path, root, f"{REMOVED}{run.path.name}")
    _relink(root)


def _relink(root: Path) -> None:
    """``latest`` leads to the last run that is left."""
    link = root / "latest"
    if os.path.lexists(link) and not followed(link).is_dir():
        left = [run for run in runs_in(root) if run.path.parent == root]
        if left:
            write_link(link, left[0].path)
        else:
            link.unlink()
