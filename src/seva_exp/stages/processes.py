"""A stage under several processes: started, listened to, and ended together.

A training's processes (``stages/worker.py``) are the ranks of one torch.distributed group: rank 0
works in the stage's folder and speaks for all, the others work in scratch folders of their own.
Generation's share the samples instead, all in the stage's folder, and need nothing of each other.
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
from operator import itemgetter
from pathlib import Path
from typing import Any

from seva_exp.core.errors import InputError, StageError
from seva_exp.core.machine import Machine, resolve_device
from seva_exp.core.printable import flat
from seva_exp.core.spec import Json
from seva_exp.core.store import PARTS
from seva_exp.stages.accelerate_config import launch_environment
from seva_exp.stages.base import Inputs, StageContext

JOB, EVENTS, RESULT = "job.pickle", "events-{}.jsonl", "result-{}.json"
ERROR = "error-{}.pickle"
SCRATCH = "ranks"
"""Folder of the ranks' files, in the work's ``parts``."""
POLL = 0.1
"""Seconds between two looks at the processes."""


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
    """Do the job in ``machine.processes`` processes; what each returns. Raises the error of a rank
    that stops, and StageError for one that dies, with what it was ``working_on``."""
    device, accelerate = check_processes(context.machine)
    context.release()
    scratch = job.work / PARTS / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    each = environments(context.machine, device, accelerate if job.together else {})
    with ExitStack() as stack:
        (scratch / JOB).write_bytes(pickle.dumps((job, context.machine, device)))
        ranks = [
            stack.enter_context(_Rank(number, environment, scratch))
            for number, environment in enumerate(each)
        ]
        hear = _Hearing(scratch, len(ranks), context, stack)
        while any(rank.running for rank in ranks):
            hear()
            if failed := [rank for rank in ranks if rank.failed]:
                time.sleep(POLL)  # the others say what they have to say of it
                raise _why(job, failed, ranks, working_on)
            time.sleep(POLL)
        hear()
        if failed := [rank for rank in ranks if rank.failed]:
            raise _why(job, failed, ranks, working_on)
        files = (scratch / RESULT.format(rank.number) for rank in ranks)
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def check_processes(machine: Machine) -> tuple[str, dict[str, str]]:
    """The ranks' device, and what accelerate is told. Raises InputError where it cannot be."""
    accelerate = launch_environment(machine)
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


def environments(machine: Machine, device: str, accelerate: dict[str, str]) -> list[dict[str, str]]:
    """Each rank's variables of torch.distributed and accelerate (``accelerate``: by its config)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = machine.processes
    shared = {
        **accelerate,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        "ACCELERATE_USE_CPU": str(device == "cpu").lower(),
    }
    if "OMP_NUM_THREADS" in os.environ:
        del shared["OMP_NUM_THREADS"]
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


class _Rank:
    """One process. It ends when its standard input does, so that none outlives this one."""

    def __init__(self, number: int, environment: dict[str, str], scratch: Path) -> None:
        self.number = number
        self._log = scratch / f"rank-{number}.log"
        self._error = scratch / ERROR.format(number)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "seva_exp.stages.worker", str(scratch)],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> _Rank:
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
    def error(self) -> tuple[int, Exception] | None:
        """When it stopped with an error, and which; None if it was killed."""
        if not self._error.exists():
            return None
        return self._error.stat().st_mtime_ns, pickle.loads(self._error.read_bytes())

    def ending(self) -> str:
        """How it died, and the last that it said."""
        code = self._process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"process {self.number} died ({how}): {flat(last)} (all of it: {self._log})"


def _why(
    job: ProcessTask,
    failed: Sequence[_Rank],
    ranks: Sequence[_Rank],
    working_on: Callable[[int], str],
) -> Exception:
    """The error to raise: one of ours if a rank raised it; else the death of the rank that said
    nothing (the others only lost it), else the first error of all."""
    raised = [
        found[1] for found in sorted(filter(None, (r.error for r in ranks)), key=itemgetter(0))
    ]
    for error in raised:
        if isinstance(error, (StageError, InputError)):
            return error
    silent = [rank for rank in failed if rank.error is None]
    if not silent:
        return raised[0]
    doing = working_on(silent[0].number)
    then = (
        "the same command goes on from the last checkpoint, if there is one "
        f"(machine.processes={len(ranks)})."
        if job.together
        else "the same command goes on, with any number of processes."
    )
    return StageError(
        f"{job.label}: {silent[0].ending()}{doing and f'; it was {doing}'}. What was finished is "
        f"kept: {then}"
    )


class _Hearing:
    """Hands on what the ranks write: a line is a step's numbers, for a person, or a progress bar's.
    Bars of one name are one: it counts what all ranks do."""

    def __init__(self, scratch: Path, ranks: int, context: StageContext, stack: ExitStack) -> None:
        self._read = dict.fromkeys([scratch / EVENTS.format(rank) for rank in range(ranks)], 0)
        self._shop = context
        self._stack = stack
        self._bars: dict[str, Any] = {}

    def __call__(self) -> None:
        for file, read in self._read.items():
            if not file.exists():
                continue
            with file.open("rb") as lines:
                lines.seek(read)
                content = lines.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read[file] = read + len(whole)
            for line in whole.splitlines():
                self._hear(*json.loads(line))

    def _hear(self, kind: str, *values: Any) -> None:
        if kind == "log":
            self._shop.log(*values)
        elif kind == "warn":
            self._shop.warn(*values)
        elif kind == "note":
            self._shop.note(*values)
        elif kind == "bar":
            label, total, unit = values
            if unit not in self._bars:
                self._bars[unit] = self._stack.enter_context(
                    self._shop.progress(label, total, unit)
                )
        else:
            unit, count = values
            self._bars[unit].update(count)
