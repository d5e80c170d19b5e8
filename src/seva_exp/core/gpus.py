"""GPUs for jobs that are started side by side on this machine: each takes one that no other has.

The command that is called tells the launchers' processes by an environment variable which GPUs
there are, since submitit's local executor and Ray hide all of them from jobs that do not ask. A
job's own process sees what it took as ``CUDA_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

VISIBLE, OFFERED = "CUDA_VISIBLE_DEVICES", "SEVA_EXP_GPUS"


@dataclass(frozen=True)
class Taken:
    """The GPUs of a job: ``gpus`` (none: what its process would see anyhow). ``shared``: it needs
    some for itself, and others have them too."""

    gpus: tuple[str, ...] = ()
    shared: bool = False

    def environment(self, before: Mapping[str, str]) -> dict[str, str]:
        """The environment variables of the job's process."""
        return {**before, **({VISIBLE: ",".join(self.gpus)} if self.gpus else {})}

    def note(self, there: int) -> str:
        """For a person, where GPUs are shared."""
        if not self.shared:
            return ""
        return (
            f"more jobs at once than GPUs (of {there}): this one shares GPU {','.join(self.gpus)}, "
            "its memory and its time, with another. Let fewer work at once: "
            "hydra.launcher.n_jobs (joblib), hydra.job.env_set.SEVA_EXP_JOBS_AT_ONCE (submitit), "
            "hydra.launcher.ray.init.num_cpus (Ray)."
        )


def offer(environment: MutableMapping[str, str]) -> None:
    """Tell the processes that inherit ``environment`` which GPUs this one sees."""
    environment[OFFERED] = ",".join(seen(environment))


def seen(environment: Mapping[str, str]) -> list[str]:
    """Names of the GPUs that a process sees, as CUDA_VISIBLE_DEVICES has them."""
    visible = environment.get(VISIBLE)
    if visible is None:
        return [str(number) for number in range(_count())]
    found = []
    for name in map(str.strip, visible.split(",")):
        if not name or name.startswith("-"):  # CUDA looks no further
            break
        found.append(name)
    return found


def offered(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that the sweep's process offers. SLURM gives its jobs GPUs itself, those of another
    machine."""
    if environment.get("SUBMITIT_EXECUTOR") == "slurm":
        return []
    return [name for name in environment.get(OFFERED, "").split(",") if name]


def wanted(machine: Mapping[str, Any]) -> int:
    """The number of GPUs that a job with these ``machine`` values takes; 0 if it works elsewhere,
    or names one."""
    return int(machine.get("processes", 1)) if machine.get("device") in ("auto", "cuda") else 0


def leases() -> Path:
    """The folder in which all jobs of this user on this machine note the GPUs that they take,
    whichever sweep they are of. A lock ends with the process that holds it, also when that is
    killed."""
    user = "" if sys.platform == "win32" else f"-{os.getuid()}"
    folder = Path(tempfile.gettempdir()) / f"seva_exp-gpus{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def take(folder: Path, number: int, there: list[str], count: int) -> Iterator[Taken]:
    """``count`` of the GPUs ``there``, as long as the block runs; ``folder`` is that of ``leases``.
    Where too few are left, those that fall to this ``number``, shared. A job that takes none, or
    more than there are (which it refuses itself), sees all."""
    if not count or count > len(there):
        yield Taken(tuple(there))
        return
    with ExitStack() as stack:
        mine = _several(folder, there, count, stack)
        if mine:
            yield Taken(mine)
            return
        first = number * count % len(there)
        others = [*there, *there][first : first + count]
        yield Taken(tuple(others), shared=True)


def _several(folder: Path, there: list[str], count: int, stack: ExitStack) -> tuple[str, ...]:
    """``count`` that nobody has, or none: one job after the other, or each of two would take half
    of what is enough for one."""
    mine: list[str] = []
    with ExitStack() as held, FileLock(folder / f"taking-{_safe(socket.gethostname())}.lock"):
        for name in there:
            if len(mine) < count and (lock := _free(folder, name)):
                held.callback(lock.release)
                mine.append(name)
        if len(mine) < count:
            return ()
        stack.push(held.pop_all())
    return tuple(mine)


def _free(folder: Path, name: str) -> FileLock | None:
    lock = FileLock(folder / f"gpu-{_safe(f'{socket.gethostname()}-{name}')}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _safe(name: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in name)


def _count() -> int:
    """By NVIDIA's management library, which needs no context on a GPU."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() != 0:
            return 0
        found = ctypes.c_uint()
        failed = library.nvmlDeviceGetCount_v2(ctypes.byref(found))
        library.nvmlShutdown()
    except (OSError, AttributeError):  # no driver, or an old one
        return 0
    return 0 if failed else found.value
