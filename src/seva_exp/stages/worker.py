"""One rank of a training stage: ``python -m seva_exp.stages.worker SCRATCH``, started by
``processes.launch`` alone."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seva_exp.digests import FileDigests
from seva_exp.interfaces import Placement
from seva_exp.machine import Machine
from seva_exp.runtime import settle
from seva_exp.stages.base import Workshop
from seva_exp.stages.processes import ERROR, EVENTS, JOB, RESULT


@dataclass
class RankWorkshop(Workshop):
    """The workshop of one rank: its placement knows of the others. ``folder`` is its own."""

    ranks: int = 1
    folder: Path = Path()

    def placement(self, work: Path) -> Placement:
        """Rank 0 writes in ``work``; checkpoints lie there for all. Each keeps pictures' features
        of its own, in its share of the memory."""
        alone = super().placement(self.folder)
        return replace(
            alone,
            processes=self.ranks,
            checkpoints=work / "trainer",
            vision_cache=alone.vision_cache // self.ranks,
        )


class Events:
    """What rank 0 tells the process that started it, line by line; the other ranks tell nothing."""

    def __init__(self, file: Path, rank: int) -> None:
        self._file = file
        self._rank = rank

    def say(self, *words: Any) -> None:
        if self._rank == 0:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(words) + "\n")

    def log(self, label: str, step: int, row: Any) -> None:
        self.say("log", label, step, row)

    def warn(self, text: str) -> None:
        self.say("warn", text)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Events]:
        self.say("bar", label, total, unit)
        yield self

    def update(self, count: int) -> None:
        self.say("update", count)


def main(scratch: Path) -> None:
    """Do the stage's work as the rank that the environment says."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settle()
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    stage, work, paths, machine, device = pickle.loads((scratch / JOB).read_bytes())
    events = Events(scratch / EVENTS, rank)
    try:
        own = _machine(machine, device, rank)
        folder = work if rank == 0 else scratch / f"rank-{rank}"
        folder.mkdir(exist_ok=True)
        digests = FileDigests(scratch)
        shop = RankWorkshop(
            own, digests, events.progress, events.log, events.warn, ranks=ranks, folder=folder
        )
        summary = stage.run(work, paths, shop)
    except Exception as error:
        unfinished = scratch / f"{ERROR.format(rank)}.part"
        unfinished.write_bytes(portable(error, rank))
        unfinished.rename(scratch / ERROR.format(rank))
        raise
    if rank == 0:
        (scratch / RESULT).write_text(json.dumps(summary), encoding="utf-8")


def portable(error: Exception, rank: int) -> bytes:
    """The error as a pickle, its traceback as a note. One that cannot be made again of its pickle
    becomes a RuntimeError."""
    error.add_note(f"In process {rank}:\n" + "".join(traceback.format_exception(error)))
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # whatever a class of its own does with its arguments
        known = RuntimeError(f"{type(error).__name__}: {error}")
        known.__notes__ = error.__notes__
        content = pickle.dumps(known)
    return content


def _machine(machine: Machine, device: str, rank: int) -> Machine:
    """The machine as one rank sees it: a single process on its own device."""
    if device == "cuda":
        import torch

        torch.cuda.set_device(rank)
        device = f"cuda:{rank}"
    return machine.model_copy(update={"device": device, "processes": 1})


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would be held at the end
        continue
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
