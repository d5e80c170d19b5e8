"""lmms-eval's environment: what it holds."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from seva_exp.core.own_environment import OwnEnvironment, Wanted

HARNESS = "0.7.3"
"""The version of lmms-eval that is installed."""
LOCKS = "4.2.11"
"""Of filelock, of which lmms-eval 0.7.3 imports a private module that 4.3 has no more."""
SHARED = ("torch", "transformers")
"""What computes the models' answers: the same versions as here."""


def wanted() -> dict[str, str]:
    """Package -> version. Without a build's own suffix (``+cpu``): which build of a version is
    taken is decided by pip's configuration."""
    shared = {name: version(name).partition("+")[0] for name in SHARED}
    return {"lmms-eval": HARNESS, **shared, "filelock": LOCKS}


class Environment(OwnEnvironment):
    """A virtual environment with lmms-eval in it, at ``folder``. It asks for torchvision and runs
    without."""

    def __init__(self, folder: Path, base: str = sys.executable) -> None:
        fragile = {"torchvision": None}
        super().__init__(folder, Wanted(f"lmms-eval {HARNESS}", wanted(), fragile, "--env"), base)
