"""A stage under several processes: started, listened to, and ended together.

A training's processes (``stages/worker.py``) are the ranks of one torch.distributed group: rank 0
works in the stage's folder and speaks for all, the others work in scratch folders of their own.
Others share the stage's pieces instead (``core.sharing``), all in its folder, and need nothing of
each other: a crew may have them on other machines, too.
What a kill leaves, or the logs after an error, lie in the stage's folder until it is done.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from seva_exp import plugins
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.machine import Machine, resolve_device
from seva_exp.core.printable import flat
from seva_exp.core.progress import Meter
from seva_exp.core.sharing import is_held
from seva_exp.core.spec import Json
from seva_exp.core.store import PARTS, RANK_LOCK
from seva_exp.stages.accelerate_config import launch_environment
from seva_exp.stages.base import Crew, Inputs, StageContext, Worker

JOB, EVENTS, RESULT = "job.pickle", "events-{}.jsonl", "result-{}.json"
ERROR = "error-{}.pickle"
SCRATCH = "ranks"
"""Folder of the ranks' files, in the work's ``parts``."""
POLL = 0.1
"""Seconds between two looks at the processes."""
COUNT_EVERY = 2.0
"""Seconds between two counts of those that live."""


@dataclass(frozen=True)
class ProcessTask:
    """The work of one process: ``task(work, inputs, context)`` of the stage called ``label``."""

    task: Callable[[Path, Inputs, StageContext], Json]
    label: str
    work: Path
    inputs: Inputs
    together: bool = True
    """Whether the processes are one training; else each works for itself."""


def launch(
    job: ProcessTask, context: StageContext, working_on: Callable[[int], str] = lambda rank: ""
) -> list[Json]:
    """Have the job done by the context's crew, or by ``machine.processes`` processes; what each
    returns. Raises the error of one that stops, and StageError for one that dies, with what it was
    ``working_on``: at once in a training and where all are on this machine, else when all did."""
    crew: Crew = Here(context.machine)
    if context.crew and (context.crew.trains or not job.together):
        crew = context.crew
    context.release(rest=crew is not context.crew)
    scratch = job.work / PARTS / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    with ExitStack() as stack:
        content = pickle.dumps((job, context.machine))
        (scratch / JOB).write_bytes(pickle.dumps((plugins.loaded(), content)))
        workers = crew.start(scratch, job.together, stack)
        hear = _Hearing(scratch, context, stack, crew.elsewhere)
        lost: list[int] = []
        running = True
        while running:
            running = any(worker.running for worker in workers)
            hear()
            failed = [worker for worker in workers if worker.failed]
            some = crew.elsewhere and not job.together and len(failed) < len(workers)
            if failed and (any(worker.said_why for worker in failed) or not some):
                time.sleep(POLL)  # the others say what they have to say of it
                unknown = (lambda number: "") if crew.elsewhere else working_on
                raise _why(job, scratch, workers, unknown)
            for worker in failed:
                if worker.number not in lost:
                    lost.append(worker.number)
                    context.warn(f"{job.label}: {worker.ending()}. The others go on without it.")
            time.sleep(POLL if running else 0)
        results = sorted(scratch.glob(RESULT.format("*")), key=_number)
        return [json.loads(file.read_text(encoding="utf-8")) for file in results]


def _number(file: Path) -> int:
    """Of the rank that wrote it."""
    return int(file.stem.rpartition("-")[2])


def check_processes(machine: Machine, ranks: int) -> tuple[str, dict[str, str]]:
    """The device of the processes here, and what accelerate is told of all ``ranks``. Raises
    InputError where it cannot be."""
    accelerate = launch_environment(machine.model_copy(update={"processes": ranks}))
    return device_of_ranks(machine), accelerate


def device_of_ranks(machine: Machine) -> str:
    """``cpu`` or ``cuda``. Raises InputError where so many processes cannot be had."""
    import torch

    kind, many = resolve_device(machine).type, f"machine.processes={machine.processes}"
    if kind == "mps":
        raise InputError(
            f"{many}: each process needs a device of its own, and this machine has one. Take "
            "machine.device=cpu, or machine.processes=1."
        )
    if kind == "cuda" and machine.processes > torch.cuda.device_count():
        raise InputError(
            f"{many}: this machine has {torch.cuda.device_count()} GPUs. Take as many processes "
            "at most."
        )
    return kind


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def shared_environment(device: str, ranks: int, address: str = "127.0.0.1") -> dict[str, str]:
    """The variables of torch.distributed and accelerate that all ``ranks`` have; the first is at
    ``address``, which is this machine."""
    return {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": str(device == "cpu").lower(),
    }


def own_environments(first: int, count: int, neighbours: int, gpu: int = 0) -> list[dict[str, str]]:
    """The variables of the ``count`` ranks that one process starts, from rank ``first`` on; it and
    others start ``neighbours`` on this machine, and its GPUs are those from ``gpu`` on."""
    shared = {"LOCAL_WORLD_SIZE": str(neighbours)}
    if "OMP_NUM_THREADS" not in os.environ:
        shared["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // neighbours))
    return [
        {**shared, "RANK": str(first + place), "LOCAL_RANK": str(gpu + place)}
        for place in range(count)
    ]


@dataclass(frozen=True)
class Here:
    """``machine.processes`` processes on this machine."""

    machine: Machine
    trains: ClassVar[bool] = True
    elsewhere: ClassVar[bool] = False

    def start(self, scratch: Path, together: bool, stack: ExitStack) -> list[Rank]:
        return [stack.enter_context(Rank(one, scratch)) for one in self.environments(together)]

    def environments(self, together: bool) -> list[dict[str, str]]:
        """Each rank's variables."""
        count = self.machine.processes
        device, accelerate = check_processes(self.machine, count)
        shared = (accelerate if together else {}) | shared_environment(device, count)
        return [one | shared for one in own_environments(0, count, count)]

    def rest(self) -> None: ...


class Rank:
    """One process. It ends when its standard input does, so that none outlives this one."""

    def __init__(self, environment: dict[str, str], scratch: Path) -> None:
        self.number = int(environment["RANK"])
        self._log = scratch / f"rank-{self.number}.log"
        self._error = scratch / ERROR.format(self.number)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "seva_exp.stages.worker", str(scratch)],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Rank:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def failed(self) -> bool:
        return self._process.poll() not in (None, 0)

    @property
    def said_why(self) -> bool:
        return self._error.exists()

    def ending(self) -> str:
        code = self._process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"process {self.number} died ({how}): {flat(last)} (all of it: {self._log})"


def _why(
    job: ProcessTask,
    scratch: Path,
    workers: Sequence[Worker],
    working_on: Callable[[int], str],
) -> Exception:
    """The error to raise: one of ours if one raised it; else the death of a process that said
    nothing (the others only lost it), else the first error of all."""
    files = sorted(scratch.glob(ERROR.format("*")), key=lambda file: file.stat().st_mtime_ns)
    raised = [pickle.loads(file.read_bytes()) for file in files]
    for error in raised:
        if isinstance(error, (StageError, InputError)):
            return error
    silent = [worker for worker in workers if worker.failed and not worker.said_why]
    if not silent and raised:
        return raised[0]
    if not silent:
        failed = next(worker for worker in workers if worker.failed)
        return StageError(f"{job.label}: {failed.ending()}. What was finished is kept.")
    doing = working_on(silent[0].number)
    then = (
        "the same command resumes from the last checkpoint, if there is one "
        f"(machine.processes={len(workers)})."
        if job.together
        else "the same command resumes, with any number of processes."
    )
    return StageError(
        f"{job.label}: {silent[0].ending()}{doing and f'; it was {doing}'}. What was finished is "
        f"kept: {then}"
    )


class _Hearing:
    """Hands on what the ranks write: a line is a step's numbers, for a person, or a progress bar's.
    Bars of one name are one: it counts what all ranks do, and says how many they are where some are
    ``elsewhere``."""

    def __init__(
        self, scratch: Path, context: StageContext, stack: ExitStack, elsewhere: bool
    ) -> None:
        self._scratch = scratch
        self._read: dict[Path, int] = {}
        self._shop = context
        self._stack = stack
        self._bars: dict[str, tuple[str, Meter]] = {}
        self._hosts: dict[Path, str] = {}
        self._elsewhere = elsewhere
        self._counted = 0.0

    def __call__(self) -> None:
        for file in sorted(self._scratch.glob(EVENTS.format("*")), key=_number):
            with file.open("rb") as lines:
                lines.seek(read := self._read.get(file, 0))
                content = lines.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read[file] = read + len(whole)
            for line in whole.splitlines():
                self._hear(file, *json.loads(line))
        if self._elsewhere and time.monotonic() - self._counted > COUNT_EVERY:
            self._counted = time.monotonic()
            self._count()

    def _count(self) -> None:
        """Tell how many are at work, and on how many nodes."""
        parts = self._scratch.parent
        at_work = [
            host
            for file, host in self._hosts.items()
            if is_held(parts / RANK_LOCK.format(_number(file)))
        ]
        nodes = len({*at_work})
        on = f"{len(at_work)} at work on {nodes} node{'s' * (nodes != 1)}"
        for label, bar in self._bars.values():
            bar.describe(f"{label} ({on})")

    def _hear(self, file: Path, kind: str, *values: Any) -> None:
        if kind == "log":
            self._shop.log(*values)
        elif kind == "warn":
            self._shop.warn(*values)
        elif kind == "note":
            self._shop.note(*values)
        elif kind == "host":
            [self._hosts[file]] = values
        elif kind == "bar":
            label, total, unit = values
            if unit not in self._bars:
                bar = self._stack.enter_context(self._shop.progress(label, total, unit))
                self._bars[unit] = label, bar
                self._counted = 0.0
        else:
            unit, count = values
            self._bars[unit][1].update(count)
