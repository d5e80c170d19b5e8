"""One rank of a stage: ``python -m seva_exp.stages.worker SCRATCH``, started by
``processes.Rank`` alone; or what an actor of Ray does for one."""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seva_exp import plugins
from seva_exp.core.digests import FileDigests
from seva_exp.core.files import whole_file, write_whole
from seva_exp.core.interfaces import Placement
from seva_exp.core.interrupts import raise_again
from seva_exp.core.machine import Machine, resolve_device
from seva_exp.core.runtime import end_with_parent, settle
from seva_exp.core.sharing import alive
from seva_exp.core.store import PARTS
from seva_exp.core.terminal import settle_streams
from seva_exp.models import AnyModel
from seva_exp.stages.base import StageContext
from seva_exp.stages.processes import ERROR, EVENTS, JOB, RESULT


@dataclass
class TrainingContext(StageContext):
    """The context of one rank of a training: its placement knows of the others. ``folder`` is its
    own."""

    folder: Path = Path()

    def placement(
        self, work: Path, model: AnyModel | None = None, adapter: Path | None = None
    ) -> Placement:
        """Rank 0 writes in ``work``; checkpoints lie there for all. Each keeps pictures' features
        of its own, in its share of the memory."""
        alone = super().placement(self.folder)
        return replace(
            alone,
            processes=self.ranks,
            checkpoints=work / "trainer",
        )


class Events:
    """A rank's messages to the process that started it, line by line."""

    def __init__(self, file: Path, silent: bool) -> None:
        self._file = file
        self._silent = silent

    def say(self, *words: Any) -> None:
        if not self._silent:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(words) + "\n")

    def log(self, label: str, step: int, row: Any) -> None:
        self.say("log", label, step, row)

    def warn(self, text: str) -> None:
        self.say("warn", text)

    def note(self, text: str) -> None:
        self.say("note", text)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Bar]:
        self.say("bar", label, total, unit)
        yield Bar(self, unit)


@dataclass(frozen=True)
class Bar:
    """A progress bar of the process that started this one, known by its unit."""

    events: Events
    unit: str

    def update(self, count: int) -> None:
        self.events.say("update", self.unit, count)

    def describe(self, label: str) -> None:
        """What it is called is for the other process to say."""


def main(scratch: Path) -> None:
    """Do the job as the rank that the environment says."""
    settle_streams()
    raise_again()
    end_with_parent(1)
    settle()
    rank, ranks, neighbours = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    )
    work_on(scratch, rank, ranks, neighbours, int(os.environ["LOCAL_RANK"]))


def work_on(
    scratch: Path,
    rank: int | None,
    ranks: int,
    neighbours: int,
    gpu: int = 0,
    before: StageContext | None = None,
) -> StageContext:
    """Do the job in ``scratch`` as one of so many ranks, ``neighbours`` of them on this machine, on
    the GPU of this number, if there are GPUs; ``rank`` None: as one that is none yet. The
    model that it had ``before`` is used again; returns its context."""
    names, content = pickle.loads((scratch / JOB).read_bytes())
    plugins.load_installed()
    plugins.load(names)
    job, machine = pickle.loads(content)
    with alive(job.work / PARTS, rank) as number:
        # Of one training only rank 0 speaks.
        events = Events(scratch / EVENTS.format(number), silent=job.together and number > 0)
        events.say("host", socket.gethostname())
        told = events.progress, events.log, events.warn, events.note
        try:
            own = _machine(machine, gpu)
            context = StageContext(own, FileDigests(scratch), *told, number, ranks, neighbours)
            if before:
                context = before.kept_in(context)
            if job.together:
                folder = job.work if number == 0 else scratch / f"rank-{number}"
                folder.mkdir(exist_ok=True)
                context = TrainingContext(**vars(context), folder=folder)
            summary = job.task(job.work, job.inputs, context)
        except Exception as error:
            with whole_file(scratch / ERROR.format(number)) as file:
                file.write(portable(error, number))
            raise
        write_whole(scratch / RESULT.format(number), json.dumps(summary))
        return context


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


def _machine(machine: Machine, gpu: int) -> Machine:
    """The machine as one rank sees it: a single process on its own device."""
    device = resolve_device(machine).type
    if device == "cuda":
        import torch

        torch.cuda.set_device(gpu)
        device = f"cuda:{gpu}"
    return machine.model_copy(update={"device": device, "processes": 1})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
