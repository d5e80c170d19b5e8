"""One run by several processes of one command that ``srun``, ``torchrun`` or ``accelerate launch``
started, on one machine or on several: the first drives, the others help it and end with it.

They meet in a folder of the store that all of them see. Each member starts ``machine.processes``
ranks for every job that the first gives out, as the first does itself: ranks of a training, or such
as share a stage's pieces by leases (``core.sharing``).
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from seva_exp.core import gpus
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.files import write_whole
from seva_exp.core.machine import Machine
from seva_exp.core.sharing import is_held
from seva_exp.core.spec import Json
from seva_exp.stages.base import Worker
from seva_exp.stages.processes import (
    ERROR,
    RESULT,
    Rank,
    check_processes,
    own_environments,
    shared_environment,
)

FOLDER = "members"
DRIVER, MEMBER, JOB, ENDED = "driver.lock", "member-{}", "job.json", "ended-{}.json"
OPEN_SECONDS = 10.0
"""How long the first waits for one before it to end."""
POLL = 0.3
"""Seconds between two looks at what the others write."""
JOIN_SECONDS = 120.0
"""How long members wait for each other when a run begins."""
TORCHRUN = re.compile(
    r"(RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_\w+|ROLE_\w+|MASTER_ADDR|MASTER_PORT"
    r"|TORCHELASTIC_\w+|TORCH_NCCL_ASYNC_ERROR_HANDLING|ACCELERATE_\w+|FSDP_\w+)"
)
"""Variables for one training by the processes that have them; ours are trained by their ranks."""


@dataclass(frozen=True)
class Place:
    """Of this process among the ``count`` that were started together: ``rank`` of all, ``local`` of
    those on this machine; ``run`` tells this start from others, ``address`` is the first one's."""

    rank: int
    count: int
    local: int
    run: str
    address: str = ""


def launched(environment: MutableMapping[str, str]) -> Place | None:
    """The place that ``torchrun`` (or ``accelerate launch``) or else SLURM gave this process; None
    for one that was started alone. Takes torchrun's variables out of the environment."""
    torch = {k: environment.pop(k) for k in list(environment) if TORCHRUN.fullmatch(k)}
    found = None
    if "RANK" in torch and "WORLD_SIZE" in torch:
        run = "-".join(torch.get(k, "") for k in ("TORCHELASTIC_RUN_ID", "MASTER_PORT"))
        rank, count = int(torch["RANK"]), int(torch["WORLD_SIZE"])
        local = int(torch.get("LOCAL_RANK", 0))
        found = Place(rank, count, local, f"torch-{run}", torch.get("MASTER_ADDR", ""))
    elif "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment:
        run = "-".join(environment.get(k, "") for k in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        rank, count = int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
        found = Place(rank, count, int(environment.get("SLURM_LOCALID", 0)), f"slurm-{run}")
    if found is None or found.count == 1:
        environment.update(torch if found is None else {})
        return None
    return found


def place_in(machine: Machine, place: Place | None) -> Place | None:
    """The place where ``machine.nodes`` agrees; None where this process does a run of its own.
    Raises InputError where others were to be there."""
    if machine.nodes == 1:
        return None
    count = place.count if place else 1
    if machine.nodes not in (None, count):
        raise InputError(
            f"machine.nodes={machine.nodes}: a launcher started {count} of this command. Start "
            f"them by srun -N{machine.nodes} --ntasks-per-node=1 python -m seva_exp ..., or on "
            f"each node by torchrun --nnodes={machine.nodes} --nproc-per-node=1 -m seva_exp ..."
        )
    if place and machine.cluster:
        raise InputError(
            f"machine.cluster={machine.cluster}: a launcher started {count} of this command, of "
            "which each would ask the cluster. Start one, or leave the cluster out."
        )
    return place


class Members:
    """All that were started together, as the first of them sees it."""

    trains = True
    elsewhere = True

    def __init__(self, place: Place, machine: Machine) -> None:
        self._place, self._machine = place, machine
        self._folder = _folder(place, machine)
        self._lock = FileLock(self._folder / DRIVER)
        self._began = time.monotonic()
        self._jobs = 0
        self._seen: set[int] = set()

    def open(self) -> Members:
        """From now on the others find the first. Raises InputError where there is one."""
        try:
            self._lock.acquire(timeout=OPEN_SECONDS)
        except Timeout:
            raise InputError(
                f"machine.store: another process drives in {self._folder}; has it the same "
                "SLURM_JOB_ID and SLURM_STEP_ID, or torchrun's --rdzv-id and port?"
            ) from None
        (self._folder / JOB).unlink(missing_ok=True)
        return self

    def close(self) -> None:
        """The others may end."""
        (self._folder / JOB).unlink(missing_ok=True)
        self._lock.release()

    def start(self, scratch: Path, together: bool, stack: ExitStack) -> list[Worker]:
        others, each = self._present(together), self._machine.processes
        ranks = each * (1 + len(others))
        device, accelerate = check_processes(self._machine, ranks)
        here = socket.gethostname()
        apart = any(other["host"] != here for other in others)
        address = (self._place.address or here) if apart else "127.0.0.1"
        shared = accelerate if together else {}
        shared = shared | shared_environment(device, ranks, address)
        on = Counter([here, *(other["host"] for other in others)])
        self._jobs += 1
        given = {
            other["token"]: {"first": each * number, "neighbours": each * on[other["host"]]}
            for number, other in enumerate(others, 1)
        }
        job = {"number": self._jobs, "scratch": str(scratch), "shared": shared, "given": given}
        write_whole(self._folder / JOB, json.dumps(job))
        stack.callback((self._folder / JOB).unlink, missing_ok=True)
        own = own_environments(0, each, each * on[here])
        workers: list[Worker] = [stack.enter_context(Rank(one | shared, scratch)) for one in own]
        for number, other in enumerate(others, 1):
            lock = self._folder / f"{MEMBER.format(other['rank'])}.lock"
            of = range(each * number, each * (number + 1))
            workers += [Remote(rank, other["host"], lock, scratch) for rank in of]
        return workers

    def rest(self) -> None: ...

    def _present(self, together: bool) -> list[Json]:
        """The others that live. A training waits for those that were not seen yet, when the run has
        just begun."""
        while True:
            found = [one for rank in range(1, self._place.count) if (one := self._other(rank))]
            self._seen |= {one["rank"] for one in found}
            waited = time.monotonic() - self._began > JOIN_SECONDS
            if len(self._seen) == self._place.count - 1 or waited or not together:
                break
            time.sleep(POLL)
        if together and self._machine.nodes and len(found) < self._place.count - 1:
            raise StageError(
                f"machine.nodes={self._machine.nodes}: {1 + len(found)} of them are here. Start "
                "all again; what was finished is kept."
            )
        return found

    def _other(self, rank: int) -> Json | None:
        file = self._folder / f"{MEMBER.format(rank)}.json"
        if not file.exists() or not is_held(file.with_suffix(".lock")):
            return None
        return {"rank": rank, **json.loads(file.read_text(encoding="utf-8"))}


@dataclass(frozen=True)
class Remote:
    """A rank that another member started, whose ``lock`` that member holds."""

    number: int
    host: str
    lock: Path
    scratch: Path

    @property
    def _ended(self) -> Json | None:
        file = self.scratch / ENDED.format(self.number)
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    @property
    def running(self) -> bool:
        return self._ended is None and is_held(self.lock)

    @property
    def failed(self) -> bool:
        return not self.running and not (self.scratch / RESULT.format(self.number)).exists()

    @property
    def said_why(self) -> bool:
        return (self.scratch / ERROR.format(self.number)).exists()

    def ending(self) -> str:
        ended = self._ended
        if ended:
            return f"{ended['said']}, on {self.host}"
        return f"process {self.number} is gone, with all that was started with it on {self.host}"


def help_out(place: Place, machine: Machine) -> None:
    """What all but the first do: work as the first says, until it is done or dead."""
    folder = _folder(place, machine)
    name, token = MEMBER.format(place.rank), secrets.token_hex(8)
    with FileLock(folder / f"{name}.lock"):
        here = {"host": socket.gethostname(), "token": token}
        write_whole(folder / f"{name}.json", json.dumps(here))
        lock, late, done = folder / DRIVER, time.monotonic() + JOIN_SECONDS, 0
        while not _drives(lock, 4) and time.monotonic() < late:
            time.sleep(POLL)
        while _drives(lock):
            job = _given(folder, token)
            if job and job["number"] > done:
                done = job["number"]
                _do(job, token, place, machine, folder)
            time.sleep(POLL)


def _given(folder: Path, token: str) -> Json | None:
    """The job that the first has given out, if some of it is for this process."""
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return job if token in job["given"] else None


def _do(job: Json, token: str, place: Place, machine: Machine, folder: Path) -> None:
    """Start this process's ranks, and say how each ended; they end when they are not wanted."""
    scratch, given = Path(job["scratch"]), job["given"][token]
    each = machine.processes
    gpu = first_gpu(place.local, each, len(gpus.seen(os.environ)))
    own = own_environments(given["first"], each, given["neighbours"], gpu)
    with ExitStack() as stack:
        running = [stack.enter_context(Rank(one | job["shared"], scratch)) for one in own]
        while running and _drives(folder / DRIVER) and _given(folder, token) == job:
            for rank in [rank for rank in running if not rank.running]:
                running.remove(rank)
                said = rank.ending() if rank.failed else ""
                write_whole(scratch / ENDED.format(rank.number), json.dumps({"said": said}))
            time.sleep(POLL)


def first_gpu(local: int, each: int, seen: int) -> int:
    """Of the GPUs that this process sees, the first of its ranks': a launcher that gives each
    process its own shows it no others."""
    return local * each if seen >= (local + 1) * each else 0


def _drives(lock: Path, looks: int = 1) -> bool:
    """Whether the first drives. Another member's look at its lock may be taken for its hold: when
    it is to be sure, there are several ``looks``."""
    for _ in range(looks):
        if not is_held(lock):
            return False
        time.sleep(random.uniform(0, POLL))
    return True


def _folder(place: Place, machine: Machine) -> Path:
    name = re.sub(r"[^\w.-]", "-", place.run)
    folder = machine.store_root() / FOLDER / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"machine.store={machine.store_root()}: cannot write to this folder "
            f"({error.strerror}). Give another (machine.store=DIR or $SEVA_EXP_STORE)."
        ) from error
    return folder
