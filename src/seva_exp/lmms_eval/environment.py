"""lmms-eval's environment: a folder of its own, since it pins packages that a run has in other
versions. Made once, by the plain commands that a person would type."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from seva_exp.core.errors import InputError, StageError

HARNESS = "0.7.3"
"""The version of lmms-eval that is installed."""
SHARED = ("torch", "transformers")
"""What computes the models' answers: the same versions as here."""
_TORCHVISION = (
    "import importlib.util\nif importlib.util.find_spec('torchvision'): import torchvision"
)
"""Fails where torchvision is there and cannot be imported: PyPI's fits PyPI's torch only, not a CPU
build (github.com/pytorch/vision/issues/9085). lmms-eval asks for it and runs without."""
_VERSIONS = (
    "import importlib.metadata as m, json\n"
    "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in m.distributions()}))"
)


def wanted() -> dict[str, str]:
    """Package -> version. Without a build's own suffix (``+cpu``): which build of a version is
    taken is decided by pip's configuration."""
    shared = {name: version(name).partition("+")[0] for name in SHARED}
    return {"lmms-eval": HARNESS, **shared}


class Environment:
    """A virtual environment with lmms-eval in it, at ``folder``; ``base`` is the Python that it is
    made of."""

    def __init__(self, folder: Path, base: str = sys.executable) -> None:
        self.folder = folder.expanduser().absolute()
        self.base = base
        windows = sys.platform == "win32"
        self.python = self.folder / ("Scripts/python.exe" if windows else "bin/python")

    def check(self) -> None:
        """Raises InputError where the folder holds something else, or there is no such Python."""
        if shutil.which(self.base) is None:
            raise InputError(f"--python {self.base}: there is no such program.")
        known = not self.folder.exists() or (self.folder / "pyvenv.cfg").is_file()
        if not known and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(
                f"--env {self.folder}: is no virtual environment, and not empty. Give a folder "
                "that does not exist yet."
            )

    @property
    def ready(self) -> bool:
        """Whether all that is wanted is there, in the versions wanted, and can be imported."""
        if not self.python.is_file():
            return False
        done = self._ask(_VERSIONS)
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        there = all(found.get(k, "").partition("+")[0] == v for k, v in wanted().items())
        return there and self._ask(_TORCHVISION).returncode == 0

    def _ask(self, code: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), "-I", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def commands(self) -> list[list[str]]:
        """The commands that make the environment, in order."""
        pins = [f"{name}=={number}" for name, number in wanted().items()]
        return [
            [self.base, "-m", "venv", str(self.folder)],
            self._pip("install", *pins),
        ]

    def _pip(self, *words: str) -> list[str]:
        return [str(self.python), "-m", "pip", *words]

    def install(self, log: Path) -> None:
        """Make it, or make it whole. Raises StageError with the commands to do it by hand."""
        from filelock import FileLock

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder.with_name(f"{self.folder.name}.lock")):
            if self.ready:  # by another process, meanwhile
                return
            with log.open("w", encoding="utf-8") as file:
                for command in self.commands():
                    self._do(command, file.fileno(), log)
                if self._ask(_TORCHVISION).returncode:
                    self._do(self._pip("uninstall", "-y", "torchvision"), file.fileno(), log)
            if not self.ready:
                raise StageError(self._by_hand("pip installed other versions", log))

    def _do(self, command: Sequence[str], out: int, log: Path) -> None:
        try:
            done = subprocess.run(command, stdout=out, stderr=out, check=False)
        except OSError as error:
            raise StageError(self._by_hand(f"{command[0]}: {error.strerror}", log)) from None
        if done.returncode:
            raise StageError(self._by_hand(last_line(log), log))

    def _by_hand(self, why: str, log: Path) -> str:
        lines = "\n".join(f"  {shlex.join(command)}" for command in self.commands())
        return (
            f"lmms-eval {HARNESS} could not be installed: {why} (all of it: {log}). By hand, with "
            f"another Python, index or proxy if need be:\n{lines}\nThen give the same command "
            "again; it takes the environment as it is."
        )


def last_line(log: Path) -> str:
    """The last that was said that tells something."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n")]
    errors = [line for line in lines if line.startswith("ERROR")]
    return ([*filter(None, lines), *errors] or ["it said nothing"])[-1][:400]
