"""Checkpoints inside a training stage: written whole or not used, the last two kept."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from seva_exp.core.digests import file_sha256
from seva_exp.core.disk import warn_of_damage
from seva_exp.core.files import write_whole

COMPLETE = "complete.json"
"""Written last into a checkpoint: the sizes in bytes and the digests of its files, and the model's
number format. Without it, or where a size differs, the checkpoint was being written when the
process was killed."""
SHARE = 0.05
"""Of a training's time, what writing checkpoints may take."""
KEPT = 2
"""Checkpoints that are kept. Whether the last one is any good shows in the step after it."""


def finish(checkpoint: Path, dtype: Any) -> None:
    """Mark a written checkpoint as whole, and take all but the one before it away."""
    files = [file for file in sorted(checkpoint.rglob("*")) if file.is_file()]
    for file in files:
        _flush(file)
    sizes = {str(file.relative_to(checkpoint)): file.stat().st_size for file in files}
    sums = {str(file.relative_to(checkpoint)): file_sha256(file) for file in files}
    facts = {"dtype": str(dtype), "sizes": sizes, "sha256": sums}
    write_whole(checkpoint / COMPLETE, json.dumps(facts))
    newest(checkpoint.parent, dtype)


def newest(folder: Path, dtype: Any) -> Path | None:
    """The last whole checkpoint in ``folder``, or None; what is not kept is taken away.

    One of a model in another number format is not gone on with: the reference that its first steps
    were held to is not that of the others.
    """
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path, str(dtype))]
    kept = sorted(whole, key=lambda path: int(path.name.rpartition("-")[2]))[-KEPT:]
    for path in folder.glob("checkpoint-*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
    return kept[-1] if kept else None


def undamaged(folder: Path, dtype: Any) -> Path | None:
    """As ``newest``, of those whose files have the bytes that were written: a damaged one is set
    aside, and the one before it taken. Each rank of a training finds the same."""
    while last := newest(folder, dtype):
        name = _damaged(last)
        if name is None:
            return last
        aside = last.with_name(f"damaged-{last.name}-{time.time_ns()}")
        with suppress(FileNotFoundError):  # another rank has done it
            last.rename(aside)
        warn_of_damage(
            f"{last / name}: is damaged (its bytes have another digest); the checkpoint is set "
            f"aside as {aside.name}, and the one before is gone on from, if there is one"
        )
    return None


def _damaged(checkpoint: Path) -> str | None:
    """The first file whose bytes are not those that were written."""
    name = COMPLETE
    try:
        facts = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        for name, value in facts.get("sha256", {}).items():
            if file_sha256(checkpoint / name) != value:
                return name
    except (OSError, ValueError):  # another rank has renamed it
        return name
    return None


def distrust(folder: Path, step: int) -> None:
    """The step after this one went wrong: its checkpoint, if there is one, is taken away."""
    shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)


def _is_whole(checkpoint: Path, dtype: str) -> bool:
    try:
        facts = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        files = facts["sizes"].items()
        whole = all((checkpoint / name).stat().st_size == size for name, size in files)
        return whole and facts["dtype"] == dtype
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


class CheckpointClock(TrainerCallback):
    """Asks for a checkpoint after the first step that ends ``minutes`` after the last one (0: after
    each step), and later where writing one takes so long that it would take more than SHARE of the
    time: at rank 1024 of a 7B model one is 29 GiB. The last step needs none: the adapter itself
    follows."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._wait = self._seconds
        self._last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        due = [time.monotonic() - self._last >= self._wait]
        if args.world_size > 1:  # one clock for all ranks: they write a checkpoint together
            broadcast_object_list(due)
        if due[0] and state.global_step < state.max_steps:
            control.should_save = True
            self._last = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer when the checkpoint is written."""
        if self._seconds:
            self._wait = max(self._seconds, (time.monotonic() - self._last) / SHARE)
