"""Where ``conf/`` and ``sweeps/`` lie: in the package (wheel) or in the checkout; how folders of
outputs are told from data."""

from __future__ import annotations

from pathlib import Path

MARKER = ".seva_exp"
"""The empty file in a folder of runs and in a store: what lies there is never taken for data."""
_PACKAGE = Path(__file__).parents[1]


def config_dir() -> Path:
    """The config groups: absolute, since Hydra reads a relative path differently for a module, a
    console script and a wheel."""
    return _find("conf")


def sweeps_dir() -> Path:
    """The ablation sweeps."""
    return _find("sweeps")


def _find(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parents[1] / name


ADDED: dict[str, set[str]] = {}
"""By config group what plugins add to it."""


def options_of(group: str) -> list[str]:
    """The names that a config group offers."""
    own = {file.stem for file in (config_dir() / group).glob("*.yaml")}
    return sorted(own | ADDED.get(group, set()))
