"""``python -m seva_exp`` and its other commands many times over: a process that has imported them
forks for each command.

Each command is a process of its own, with its own folder, environment and streams, as one that was
started anew. What of this package it has imported (and torch, TRL with it) the server imports
before the next one, so that a command alone waits for nothing that it does not need.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

STREAMS = ("stdin", "stdout", "stderr")
EARLY = [
    f"seva_exp.{name}"
    for name in ("command.cli", "experiment.execution", "decoding.engine", "training.dpo")
]


@dataclass(frozen=True)
class Ends:
    """A command that gets a signal when it has finished so many batches of a journal whose path
    matches: at the same point on a quick and on a slow machine, and whatever else works there."""

    journal: str
    batches: int
    signal: int = signal.SIGKILL


class Commands:
    """The server, from the side of those who ask; started when it is first asked. ``early``: it
    imports what most commands need before the first, which would do so for itself alone."""

    def __init__(self, early: bool = False) -> None:
        self._early = early
        self._server: subprocess.Popen[str] | None = None

    def run(
        self,
        words: list[str],
        cwd: Path,
        environment: dict[str, str],
        ends: Ends | None = None,
        module: str = "seva_exp",
    ) -> Any:
        """What ``subprocess.run`` would give of ``python -m MODULE``, streams as text."""
        if self._server is None:
            self._server = self._start()
        server = self._server
        with TemporaryDirectory() as folder:
            asked = {"words": words, "cwd": str(cwd), "env": environment, "folder": folder}
            asked |= {"module": module, "ends": asdict(ends) if ends else None}
            try:
                print(json.dumps(asked), file=server.stdin, flush=True)
                code = int(server.stdout.readline())
            except BaseException:  # the test is late: it leaves no command behind
                os.killpg(server.pid, signal.SIGKILL)
                self.end()
                raise
            said = [Path(folder, name).read_text(encoding="utf-8") for name in STREAMS[1:]]
        return subprocess.CompletedProcess(words, code, *said)

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__, *(EARLY if self._early else ())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A look whether there is a GPU must not keep forked processes from using it.
            env=os.environ | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
        )

    def end(self) -> None:
        """The server goes when no one can ask any more."""
        if self._server is not None:
            self._server.communicate()
            self._server = None


def serve() -> None:
    """Fork for each line of standard input; reply with the command's exit code."""
    sys.path[0] = ""  # as with -m
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries say when they are imported is no reply
    for name in sys.argv[1:]:
        importlib.import_module(name)
    _know_the_code(sys.argv[1:])
    for line in sys.stdin:
        asked = json.loads(line)
        imported = Path(asked["folder"], "imported")
        gc.freeze()  # no collection in the child looks through, and so copies, what is here
        if (pid := os.fork()) == 0:
            if asked["ends"]:
                _end_at(Ends(**asked["ends"]))
            do(asked["module"], asked["words"], asked["cwd"], asked["env"], imported)
        _, status = os.waitpid(pid, 0)
        names = json.loads(imported.read_text()) if imported.exists() else []
        print(os.waitstatus_to_exitcode(status), file=replies, flush=True)
        for name in names:
            importlib.import_module(name)
        _know_the_code(names)


def _know_the_code(names: list[str]) -> None:
    """So that not every command reads the source anew for its manifests."""
    if "seva_exp.experiment.execution" in names:
        from seva_exp import stages
        from seva_exp.core import closure

        for cls in stages.STAGES.values():
            closure.code_of(cls)


def _end_at(ends: Ends) -> None:
    """Have this process end so."""
    from seva_exp.core.store import Journal

    append, left = Journal.append, ends.batches

    def appended(journal: Any, rows: Any) -> None:
        nonlocal left
        append(journal, rows)
        if fnmatch(str(journal.path), ends.journal):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), ends.signal)

    Journal.append = appended  # type: ignore[method-assign]


def do(
    module: str, words: list[str], cwd: str, environment: dict[str, str], imported: Path
) -> None:
    """The command, in the forked process; it ends with its exit code."""
    atexit._clear()  # what the server has opened is not this process's to close
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(STREAMS):
        os.dup2(os.open(imported.with_name(name), os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["seva_exp", *words]
    code: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    names = [name for name in sys.modules if name.startswith("seva_exp.")]
    imported.write_text(json.dumps(names))
    os._exit(code or 0)


if __name__ == "__main__":
    serve()
