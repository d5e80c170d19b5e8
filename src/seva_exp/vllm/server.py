"""A vLLM server of this run's own: started, waited for, started again when it dies, ended with
everything that it started."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from seva_exp.core.errors import StageError
from seva_exp.core.machine import Server
from seva_exp.core.printable import flat

GUARD = Path(__file__).with_name("guard.py")
HEALTH_SECONDS = 60.0
"""Longest wait for a word of a server that should answer."""
LOOK_SECONDS = 0.3
END_SECONDS = 15.0
"""For the server to end when it is asked to; then it is killed."""


class OwnServer(Server):
    """The address of a server that this run has started, and its key."""

    field: ClassVar[str] = "generation=vllm, server"
    secret: str

    def api_key(self) -> str:
        return self.secret


class VllmServer:
    """``command(port)`` in the environment ``variables(key)``, its words in ``log``. It may take
    ``start_seconds`` until it answers, and die ``restarts`` times."""

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        variables: Callable[[str], Mapping[str, str]],
        log: Path,
        *,
        concurrency: int = 64,
        start_seconds: float = 900.0,
        restarts: int = 5,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._command, self._variables = command, variables
        self.log = log
        self._start_seconds, self._restarts = start_seconds, restarts
        self._warn = warn
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._key = secrets.token_hex(16)
        self._port = _free_port()
        self._given_up = threading.Event()
        self.starts = 0
        """How often it was started."""
        self.address = OwnServer(
            url=f"http://127.0.0.1:{self._port}/v1", secret=self._key, concurrency=concurrency
        )

    @property
    def pid(self) -> int:
        """The process group of all that belongs to it."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers. Raises StageError where it ends before, or takes too
        long; then nothing of it is left."""
        try:
            self._start()
            self._wait()
        except BaseException:
            self.end(ask=False)
            raise

    def _start(self) -> None:
        command = [sys.executable, "-I", str(GUARD), *self._command(self._port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=dict(self._variables(self._key)),
                cwd=self.log.parent,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.starts += 1

    def _wait(self) -> None:
        assert self._process
        deadline = time.monotonic() + self._start_seconds
        while not self._healthy(LOOK_SECONDS * 10):
            if self._process.poll() is not None:
                raise StageError(f"vLLM ended before it answered: {self._ending()}")
            if self._given_up.wait(LOOK_SECONDS):
                raise StageError("vLLM is not waited for any more")
            if time.monotonic() > deadline:
                raise StageError(
                    f"vLLM did not answer within machine.vllm.start_seconds="
                    f"{self._start_seconds:g}: {self._ending()}"
                )

    def give_up(self) -> None:
        """Nobody asks any more: end a start that is waited for."""
        self._given_up.set()

    def revive(self, starts: int) -> bool:
        """After a question that failed, sent when it had been started ``starts`` times: whether it
        has died since, and answers again. Raises StageError where it has died too often."""
        with self._lock:
            if self.starts > starts:
                return True
            if self._process and self._process.poll() is None and self._healthy(HEALTH_SECONDS):
                return False
            self.end()
            if self.starts > self._restarts:
                raise StageError(
                    f"vLLM died, for the {self.starts}. time (machine.vllm.restarts="
                    f"{self._restarts}): {self._ending()} Answers that came are kept: the same "
                    "command goes on from them."
                )
            self._warn(f"vLLM died, and is started again (what it said: {self.log})")
            self.start()
            return True

    def _healthy(self, seconds: float) -> bool:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=seconds)
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
            finally:
                connection.close()
        return False

    def _ending(self) -> str:
        """The last that it said of an error, and where all of it is."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        told = [line.strip() for line in lines if line.strip()]
        errors = [line for line in told if "Error" in line]
        return f"{flat(([*told, *errors] or ['it said nothing'])[-1])} (all of it: {self.log})."

    def end(self, ask: bool = True) -> None:
        """End it and all that it started; ``ask``: it may clean up. May be called again."""
        process = self._process
        if process is None:
            return
        assert process.stdin
        with suppress(OSError):
            process.stdin.close()  # the guard ends the server, and all that is left behind
        if ask:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
