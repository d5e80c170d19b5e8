"""The folder of one run in a tracker that keeps files: found again by the run's key."""

from __future__ import annotations

import re
from pathlib import Path

from seva_exp.tracking.sink import TrackedRun


def run_folder(root: Path, run: TrackedRun) -> Path:
    """``<root>/<name>-<piece of the key>``. Where an earlier start of the same run has one, maybe
    under another name (alone, in a sweep), it is that."""
    piece = run.key[:8]
    name = re.sub(r"[^\w.+=,-]+", "_", run.name)[:80]
    there = sorted(path for path in root.glob(f"*-{piece}") if path.is_dir())
    return there[0] if there else root / f"{name}-{piece}"
