"""``machine.cluster=ray``: what is done piece by piece is done by actors of Ray that keep the
model, on this machine or on a cluster's. Ray places them and starts them again when they die; who
does which piece is a matter of leases in the store (``core.sharing``), as with other processes."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine, RayCluster, resolve_device, resolve_dtype
from seva_exp.core.printable import error_text, flat
from seva_exp.core.runtime import settle
from seva_exp.core.spec import Json
from seva_exp.stages.base import StageContext
from seva_exp.stages.worker import work_on

RESTARTS = 3
"""How often Ray starts an actor again that died."""
ANSWER_SECONDS, START_SECONDS = 40.0, 300.0
"""How long a cluster may take to answer, and its workers to start."""


class Actor:
    """What Ray makes an actor of: one worker, with the model that it has loaded."""

    def __init__(self, machine: Machine, folder: str, marker: Path, token: str) -> None:
        settle()
        self._machine, self._folder = machine, folder
        self._marker, self._token = marker, token
        self._context: StageContext | None = None

    def look(self) -> Json:
        """Where this is, and what the driver must know before it gives out work."""
        device = resolve_device(self._machine)
        return {
            "host": socket.gethostname(),
            "fault": self._fault(),
            "dtype": str(resolve_dtype(self._machine, device)),
        }

    def work(self, scratch: Path, ranks: int, neighbours: int) -> None:
        """Take part in the job. After a death Ray calls it again, perhaps on another node."""
        if fault := self._fault():
            raise InputError(fault)
        self._context = work_on(scratch, None, ranks, neighbours, before=self._context)

    def _fault(self) -> str:
        """What this node lacks of what the driver sees; empty where it lacks nothing."""
        host, store = socket.gethostname(), self._marker.parent.parent
        try:
            found = self._marker.read_text(encoding="utf-8")
        except OSError:
            found = ""
        if found != self._token:
            return (
                f"machine.store={store}: node {host} does not see this folder, or has another one "
                "of that name. Give a folder that all nodes of the Ray cluster share."
            )
        try:
            os.chdir(self._folder)
        except OSError as error:
            return f"{self._folder}: node {host} cannot work in this folder ({error.strerror})."
        return ""


class RayCrew:
    """The actors of one run. Raises InputError where there can be none."""

    trains = False
    elsewhere = True

    def __init__(self, machine: Machine, store: Path) -> None:
        self._machine = machine
        self._marker = store / "locks" / f"ray-{secrets.token_hex(4)}.marker"
        self._token = secrets.token_hex(16)
        self._actors: list[Any] = []
        self._hosts: list[str] = []

    def __enter__(self) -> RayCrew:
        connect(self._machine.ray)
        self._marker.write_text(self._token, encoding="utf-8")
        try:
            self._hire()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        self.rest()
        self._marker.unlink(missing_ok=True)
        ray.shutdown()

    def start(self, scratch: Path, together: bool, stack: ExitStack) -> list[Call]:
        if not self._actors:
            self._hire()
        on = Counter(self._hosts)
        calls = [
            Call(number, host, actor.work.remote(scratch, len(self._actors), on[host]))
            for number, (actor, host) in enumerate(zip(self._actors, self._hosts, strict=True))
        ]
        stack.callback(self._end, calls)
        return calls

    def rest(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _end(self, calls: Sequence[Call]) -> None:
        """Those that still work stop; one that is dead for good is not asked again."""
        if any(call.running or call.failed for call in calls):
            self.rest()

    def _hire(self) -> None:
        """Start the actors, and look whether all of them see what this process sees."""
        import ray

        wanted = self._machine.ray
        count, gpus = shares(wanted, self._machine.device, ray.cluster_resources())
        kind = ray.remote(
            num_cpus=wanted.cpus,
            num_gpus=gpus,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
            scheduling_strategy="SPREAD",
        )(Actor)
        words = (self._machine, os.getcwd(), self._marker, self._token)
        self._actors = [kind.remote(*words) for _ in range(count)]
        looks = [actor.look.remote() for actor in self._actors]
        _, late = ray.wait(looks, num_returns=count, timeout=START_SECONDS)
        if late:
            raise InputError(
                f"machine.ray: {len(late)} of {count} workers did not start in "
                f"{START_SECONDS:.0f} s (cpus={wanted.cpus}, gpus={gpus:g} each). Is the cluster "
                "busy? Take fewer (machine.ray.workers)."
            )
        try:
            seen = ray.get(looks)
        except ray.exceptions.RayError as error:
            why = error_text(error)
            raise InputError(f"machine.ray: a worker could not start: {why}") from error
        if faults := sorted({one["fault"] for one in seen} - {""}):
            raise InputError("\n".join(faults))
        formats = {one["dtype"]: one["host"] for one in seen}
        if len(formats) > 1:
            each = ", ".join(f"{name} on {host}" for name, host in sorted(formats.items()))
            raise InputError(
                f"machine.dtype={self._machine.dtype}: it means {each}. Name one for all nodes."
            )
        self._hosts = [one["host"] for one in seen]


class Call:
    """A worker's part in one job."""

    def __init__(self, number: int, host: str, answer: Any) -> None:
        self.number = number
        self._host = host
        self._answer = answer
        self._error: Exception | None = None

    @property
    def running(self) -> bool:
        import ray

        return not ray.wait([self._answer], timeout=0)[0]

    @property
    def failed(self) -> bool:
        import ray

        if self._error is None and not self.running:
            try:
                ray.get(self._answer)
            except ray.exceptions.RayError as error:
                self._error = error
        return self._error is not None

    @property
    def said_why(self) -> bool:
        import ray

        return isinstance(self._error, ray.exceptions.RayTaskError)

    def ending(self) -> str:
        where, why = f"worker {self.number} (first on {self._host})", flat(str(self._error))
        return f"{where} {'stopped' if self.said_why else f'died {RESTARTS + 1} times'}: {why}"


def shares(wanted: RayCluster, device: str, there: dict[str, float]) -> tuple[int, float]:
    """The number of workers and the GPUs of each, on a cluster that has ``there``. Raises
    InputError where it has not enough."""
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    each = wanted.gpus
    if each is None:
        each = 1.0 if gpus and device != "cpu" else 0.0
    most = int(gpus // each) if each else int(cpus // wanted.cpus)
    most = min(most, int(cpus // wanted.cpus))
    count = wanted.workers or most
    if not 0 < count <= most:
        raise InputError(
            f"machine.ray.workers={wanted.workers}: the cluster has {cpus:g} CPUs and {gpus:g} "
            f"GPUs, enough for {most} workers of cpus={wanted.cpus} gpus={each:g}."
        )
    return count, each


def connect(wanted: RayCluster) -> None:
    """Start Ray here, or find the cluster. Raises InputError where it does not answer in time."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    told = {"log_to_driver": False, "logging_level": logging.ERROR}
    found: list[BaseException | None] = []

    def init(**options: Any) -> None:
        try:
            ray.init(**options, **told)
            found.append(None)
        except BaseException as error:
            found.append(error)

    if wanted.address is None:
        cpus = max(os.cpu_count() or 1, (wanted.workers or 1) * wanted.cpus)
        ours = signal.getsignal(signal.SIGTERM)
        init(address="local", num_cpus=cpus, include_dashboard=False)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)  # Ray ends a process on it, our way is Ctrl-C's
    else:
        if ":" in wanted.address:
            _reach(wanted.address)
        # Where something else listens, Ray asks it for a minute, and then ends this process.
        asking = threading.Thread(target=init, kwargs={"address": wanted.address}, daemon=True)
        asking.start()
        asking.join(ANSWER_SECONDS)
        if not found:
            raise InputError(_silent(wanted.address, f"no Ray in {ANSWER_SECONDS:.0f} s"))
    if error := found[0]:
        if not isinstance(error, Exception):
            raise error
        raise InputError(_silent(wanted.address, error_text(error))) from error


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS / 4).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(_silent(address, why)) from error


def _silent(address: str | None, why: str) -> str:
    if address is None:
        return f"machine.cluster=ray: Ray cannot be started here: {why}"
    return (
        f"machine.ray.address={address}: no Ray cluster answers there ({why}). On its first node: "
        "ray start --head; on the others: ray start --address=HOST:6379; then give that address, "
        "or auto on one of the nodes."
    )
