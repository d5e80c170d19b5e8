"""A tracker that keeps files: a folder for each run, found again by the run's key."""

from __future__ import annotations

import re
from pathlib import Path

from seva_exp.core.spec import Json
from seva_exp.tracking.sink import Sink, TrackedRun


class FolderSink(Sink):
    """One run as files in a folder of its own, below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root

    def target(self) -> Json:
        return {"dir": str(self.root)}

    @property
    def place(self) -> str:
        return str(self.folder)

    def take_folder(self, run: TrackedRun) -> Path:
        """The run's, from now on: ``<root>/<name>-<piece of the key>``. Where an earlier start of
        the same run has one, maybe under another name (alone, in a sweep), it is that."""
        piece = run.key[:8]
        name = re.sub(r"[^\w.+=,-]+", "_", run.name)[:80]
        there = sorted(path for path in self.root.glob(f"*-{piece}") if path.is_dir())
        self.folder = there[0] if there else self.root / f"{name}-{piece}"
        return self.folder
