"""A program's own Python environment: a folder of its own, for what pins packages that a run has in
other versions. Made once, by the plain commands that a person would type; a kill in the middle is
made good by the next attempt."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seva_exp.core.errors import InputError, StageError

_VERSIONS = (
    "import importlib.metadata as m, json\n"
    "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in m.distributions()}))"
)


def imports(package: str) -> str:
    """Code that fails where a package is there and cannot be imported: PyPI's packages beside
    torch fit PyPI's torch only, not a CPU build (github.com/pytorch/vision/issues/9085)."""
    return f"import importlib.util\nif importlib.util.find_spec('{package}'): import {package}"


def ask_python(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in another Python, which sees neither this package nor this folder."""
    command = [str(python), "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Wanted:
    """What an environment holds for ``title``: package -> version. Each package in ``fragile`` that
    cannot be imported is mended by its function, or else taken out. ``option`` sets its folder on
    the command line."""

    title: str
    packages: Mapping[str, str]
    fragile: Mapping[str, Callable[[OwnEnvironment], None] | None]
    option: str


class OwnEnvironment:
    """A virtual environment with what is ``wanted`` in it, at ``folder``; ``base`` is the Python
    that it is made of."""

    def __init__(self, folder: Path, wanted: Wanted, base: str = sys.executable) -> None:
        self.folder = folder.expanduser().absolute()
        self.wanted = wanted
        self.base = base
        windows = sys.platform == "win32"
        self.python = self.folder / ("Scripts/python.exe" if windows else "bin/python")
        self._marker = self.folder / "made.json"
        self._mark = json.dumps(dict(wanted.packages))

    def check(self) -> None:
        """Raises InputError where the folder holds something else, or there is no such Python."""
        if shutil.which(self.base) is None:
            raise InputError(f"--python {self.base}: there is no such program.")
        known = not self.folder.exists() or (self.folder / "pyvenv.cfg").is_file()
        if not known and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(
                f"{self.wanted.option} {self.folder}: is no virtual environment, and not empty. "
                "Give a folder that does not exist yet."
            )

    @property
    def made(self) -> bool:
        """Whether an installation came to its end; quick, and nothing is imported."""
        return self._marker.is_file() and self._marker.read_text() == self._mark

    @property
    def ready(self) -> bool:
        """Whether all that is wanted is there, in the versions wanted, and can be imported."""
        return not self.lacking() and not self._broken()

    def lacking(self) -> list[str]:
        """The packages wanted that are not there in their versions, of whatever build."""
        found = self.versions()
        return [
            f"{name} {version}"
            for name, version in self.wanted.packages.items()
            if found.get(name, "").partition("+")[0] != version
        ]

    def versions(self) -> dict[str, str]:
        """Package -> version, of all that is there."""
        if not self.python.is_file():
            return {}
        done = self.ask(_VERSIONS)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def _broken(self) -> list[str]:
        return [name for name in self.wanted.fragile if self.ask(imports(name)).returncode]

    def ask(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run ``code`` there."""
        return ask_python(self.python, code)

    def commands(self) -> list[list[str]]:
        """The commands that make the environment, in order."""
        pins = [f"{name}=={number}" for name, number in self.wanted.packages.items()]
        return [
            [self.base, "-m", "venv", str(self.folder)],
            self._pip("install", *pins),
        ]

    def _pip(self, *words: str) -> list[str]:
        return [str(self.python), "-m", "pip", *words]

    def install(self, log: Path) -> None:
        """Make it, or make it whole. Raises StageError with the commands to do it by hand."""
        from filelock import FileLock

        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        except OSError as error:
            raise InputError(
                f"{self.wanted.option} {self.folder}: cannot be made ({error.strerror})."
            ) from None
        with FileLock(self.folder.with_name(f"{self.folder.name}.lock")):
            if self.ready:  # by another process, meanwhile
                self._marker.write_text(self._mark)
                return
            self._marker.unlink(missing_ok=True)
            with log.open("w", encoding="utf-8") as file:
                for command in self.commands():
                    self._do(command, file.fileno(), log)
                for name in self._broken():
                    if mend := self.wanted.fragile[name]:
                        mend(self)
                    else:
                        self._do(self._pip("uninstall", "-y", name), file.fileno(), log)
            if lacking := self.lacking():
                raise StageError(self._by_hand(f"pip did not install {', '.join(lacking)}", log))
            if broken := self._broken():
                raise StageError(self._by_hand(f"{broken[0]} cannot be imported", log))
            self._marker.write_text(self._mark)

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
            f"{self.wanted.title} could not be installed: {why} (all of it: {log}). By hand, with "
            f"another Python, index or proxy if need be:\n{lines}\n"
            "Then give the same command again; it takes the environment as it is."
        )


def last_line(log: Path) -> str:
    """The last that was said that tells something."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n")]
    errors = [line for line in lines if line.startswith("ERROR")]
    return ([*filter(None, lines), *errors] or ["it said nothing"])[-1][:400]
