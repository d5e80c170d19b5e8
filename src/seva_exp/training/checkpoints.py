"""Checkpoints inside a training stage: written whole or not used, the last one kept."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

COMPLETE = "complete.json"
"""Written last into a checkpoint: the sizes in bytes of its files. Without it, or where a size
differs, the checkpoint was being written when the process was killed."""


def finish(checkpoint: Path) -> None:
    """Mark a written checkpoint as whole, and take the older ones away."""
    files = [file for file in sorted(checkpoint.rglob("*")) if file.is_file()]
    for file in files:
        _flush(file)
    sizes = {str(file.relative_to(checkpoint)): file.stat().st_size for file in files}
    (checkpoint / COMPLETE).write_text(json.dumps(sizes), encoding="utf-8")
    _flush(checkpoint / COMPLETE)
    _keep_only(checkpoint, checkpoint.parent)


def newest(folder: Path) -> Path | None:
    """The last whole checkpoint in ``folder``, or None; what else lies there is taken away."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    _keep_only(last, folder)
    return last


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _keep_only(kept: Path | None, folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        if path != kept:
            shutil.rmtree(path, ignore_errors=True)


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


class CheckpointClock(TrainerCallback):
    """Asks for a checkpoint after the first step that ends ``minutes`` after the last one (0: after
    each step). The last step needs none: the adapter itself follows."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        due = [time.monotonic() - self._last >= self._seconds]
        if args.world_size > 1:  # one clock for all ranks: they write a checkpoint together
            broadcast_object_list(due)
        if due[0] and state.global_step < state.max_steps:
            control.should_save = True
            self._last = time.monotonic()
