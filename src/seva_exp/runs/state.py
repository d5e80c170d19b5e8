"""Whether a run works, is done, has failed or was stopped: written into its folder while it works,
and read from there by whoever lists runs. Light: nothing of models or stages is imported."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock

from seva_exp.core.files import write_whole
from seva_exp.core.printable import error_text, printable
from seva_exp.core.progress import Meter
from seva_exp.core.redact import hide
from seva_exp.core.sharing import is_held

STATE, LOCK, LOG = "state.json", "run.lock", "run.log"
"""In a run's folder: its state; the lock that its process holds while it works; what happened."""
EVERY = 2.0
"""Seconds between two notes of a stage's progress."""
How = Literal["running", "done", "failed", "stopped"]
Progress = Callable[[str, int, str], AbstractContextManager[Meter]]


@dataclass
class State:
    """``state.json``. Times are seconds since 1970; ``stage`` is what is being made, of which
    ``done`` of ``total`` ``unit`` are there. ``message`` says why it failed."""

    state: How = "running"
    name: str = ""
    seed: int = 0
    method: str = ""
    views: tuple[str, ...] = ()
    model: str = ""
    began: float = 0.0
    ended: float | None = None
    host: str = ""
    pid: int = 0
    locked: bool = True
    """Whether the process could take the lock: some file systems have none."""
    stage: str = ""
    stage_began: float | None = None
    part: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""


class StateFile:
    """The state of a run that this process does. It is a convenience: where it cannot be written,
    the run goes on."""

    def __init__(self, folder: Path, facts: State) -> None:
        self._folder = folder
        self.now = facts
        self.now.began = time.time()
        self.now.host, self.now.pid = socket.gethostname(), os.getpid()
        self._lock = FileLock(folder / LOCK)
        self._written = 0.0
        try:
            self._lock.acquire(timeout=0)
        except (OSError, NotImplementedError):
            self.now.locked = False
        self.write()

    def write(self) -> None:
        """Whole or not at all; not flushed to the disk, since it is soon written again."""
        with suppress(OSError):
            write_whole(self._folder / STATE, json.dumps(asdict(self.now)), flush=False)
        self._written = time.monotonic()

    def stage(self, label: str) -> None:
        """The stage of this label begins; empty: none is being made."""
        self.now.stage, self.now.part = label, ""
        self.now.stage_began = time.time() if label else None
        self.now.done = self.now.total = 0
        self.write()

    def end(self, how: How, message: str = "") -> None:
        """The run is over, or this process has no more to do with it."""
        if self.now.ended is None:
            self.now.state, self.now.message = how, message
            self.now.ended = time.time()
            self.write()
            self._lock.release()

    def failed(self, error: BaseException) -> None:
        """It ends with this error; an interruption is none."""
        stopped = not isinstance(error, Exception)
        self.end("stopped" if stopped else "failed", "" if stopped else hide(error_text(error)))

    def say(self, text: str) -> None:
        """A line of the run's log."""
        stamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        line = hide(printable(text)).replace("\n", "\n  ")
        with suppress(OSError), (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {line}\n")

    def noting(self, progress: Progress) -> Progress:
        """``progress``, of which the state has the count."""

        @contextmanager
        def metered(label: str, total: int, unit: str) -> Iterator[Meter]:
            with progress(label, total, unit) as meter:
                yield _Noting(self, meter, label, total, unit)
            self.now.part, self.now.done, self.now.total = "", 0, 0

        return metered

    def count(self, more: int) -> None:
        """So many more are done."""
        self.now.done += more
        if time.monotonic() - self._written >= EVERY:
            self.write()


class _Noting:
    """A meter that notes its count in a state, too."""

    def __init__(self, file: StateFile, meter: Meter, label: str, total: int, unit: str) -> None:
        self._file, self._meter = file, meter
        now = file.now
        now.part, now.done, now.total, now.unit = label, 0, total, unit

    def update(self, n: int) -> None:
        self._meter.update(n)
        self._file.count(n)

    def describe(self, label: str) -> None:
        self._file.now.part = label
        self._meter.describe(label)


def read_state(folder: Path) -> State | None:
    """What the run's folder says, the process looked at: one that was killed is ``stopped``. None
    where it says nothing: an earlier version of seva_exp began it."""
    try:
        row = json.loads((folder / STATE).read_bytes())
        known = {one.name for one in fields(State)}
        found = State(**{name: value for name, value in row.items() if name in known})
        found.views = tuple(found.views)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if found.state == "running" and not lives(folder, found):
        found.state = "stopped"
    return found


def lives(folder: Path, state: State) -> bool:
    """Whether the process that does this run still lives; what cannot be told counts as yes, so
    that nothing is taken from under it."""
    if state.locked:
        try:
            return is_held(folder / LOCK)
        except OSError:  # may not be read
            pass
    if state.host != socket.gethostname():
        return True
    try:
        return bool(psutil.Process(state.pid).create_time() <= state.began + 1)
    except psutil.Error:
        return False


def facts_of(config: Any) -> dict[str, Any]:
    """What lists tell of a run's config: method, views, model. Empty where that is damaged."""
    config = config if isinstance(config, dict) else {}
    method, model = config.get("method") or {}, config.get("model") or {}
    views = config.get("aug") or {}
    try:
        name = str(model.get("path") or model.get("kind") or "")
        return {
            "method": str(method.get("kind") or ""),
            "views": tuple(map(str, views)),
            "model": name.rstrip("/").rpartition("/")[2],
        }
    except AttributeError:
        return {"method": "", "views": (), "model": ""}
