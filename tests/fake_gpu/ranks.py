"""The processes of a run with ``machine.processes`` above 1, forked from the one that has the fake
device, where the package would start them anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, ClassVar

from seva_exp.stages import processes, worker

from .tensor import CudaTensor


class Forked:
    """What stages/processes.py asks of a ``subprocess.Popen`` of ``seva_exp.stages.worker``."""

    beside: ClassVar[list[tuple[int, int]]] = []
    """What this process held on the device, and what torch kept, when each began."""

    def __init__(
        self, command: list[str], env: dict[str, str], stdin: int, stdout: BinaryIO, stderr: int
    ) -> None:
        assert command[1:3] == ["-m", "seva_exp.stages.worker"]
        assert CudaTensor.device_running is not None
        ledger = CudaTensor.device_running.ledger
        self.beside.append((ledger.live, ledger.reserved))
        self.returncode: int | None = None
        theirs, self._input = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(theirs)
            return
        os.close(self._input)
        os.dup2(theirs, 0)
        os.dup2(stdout.fileno(), 1)
        os.dup2(stdout.fileno(), 2)
        os.environ.update(env)
        _work(Path(command[3]))

    @classmethod
    @contextmanager
    def ranks(cls) -> Iterator[None]:
        """The package starts its ranks in this way."""
        real = processes.subprocess
        processes.subprocess = SimpleNamespace(  # type: ignore[assignment]
            Popen=cls, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT
        )
        try:
            yield
        finally:
            processes.subprocess = real

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self._pid, os.WNOHANG)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)

    def communicate(self) -> Any:
        os.close(self._input)
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def _work(scratch: Path) -> None:
    """In the forked process, which ends here."""
    code = 0
    try:
        worker.main(scratch)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
