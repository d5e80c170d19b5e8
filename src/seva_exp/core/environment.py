"""What a result was made with: versions, device, commit. Written into every manifest."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from seva_exp.core.machine import Machine, resolve_device, resolve_dtype
from seva_exp.core.spec import Json

PACKAGES = (
    "seva_exp", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers",
    "kornia", "pillow", "numpy", "rapidfuzz", "hydra-core", "wandb",
)  # fmt: skip


CODE = "code"
"""Of an artifact's environment: the digests of the code that decides its content
(``closure.code_of``)."""


def describe_environment(machine: Machine) -> Json:
    """Versions and commit; device and number format once torch is loaded."""
    facts: Json = {"python": platform.python_version(), "platform": platform.platform()}
    facts["packages"] = dict(_versions())
    facts["commit"] = _commit()
    if "torch" in sys.modules:
        device = resolve_device(machine)
        facts["device"] = _device_name(str(device))
        facts["dtype"] = str(resolve_dtype(machine, device)).removeprefix("torch.")
        facts["threads"] = sys.modules["torch"].get_num_threads()
    return facts


def _device_name(device: str) -> str:
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if "cuda" in device else device


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def _commit() -> str | None:
    """The checkout's git commit, with ``+changes`` when it is not clean; None outside one."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + changes
    except (OSError, subprocess.CalledProcessError):
        return None
