"""Hydra's private API, here alone: how its own sweeper makes jobs of a command's words, and what
differs between the versions that are supported. A sweep's jobs are looked at before the first
begins, and Hydra has no public way to list them.
``tests/command/test_hydra_private.py`` tells when Hydra moves."""

from __future__ import annotations

from typing import Any

TRUSTED = ("seva_exp.*", "hydra.*", "hydra_plugins.*", "optuna.samplers.*", "optuna.pruners.*")
"""What a config may have Hydra make (``_target_``): our callback, launchers, sweepers, samplers."""


def main_arguments() -> dict[str, Any]:
    """What ``hydra.main`` is told in the words of the version that is here. Below 1.4: the rules of
    1.3. From 1.4 on these are the only ones, and it asks what is ``TRUSTED``."""
    import hydra

    major, minor = hydra.__version__.split(".")[:2]
    if (int(major), int(minor)) < (1, 4):
        return {"version_base": "1.3"}
    return {"execution_whitelist": list(TRUSTED)}


def sweeps_a_grid(sweeper: type) -> bool:
    """Whether the sweeper is Hydra's own, whose jobs are known before any is run."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return sweeper is BasicSweeper


def grid(overrides: list[Any]) -> list[list[str]]:
    """The words of each job, in Hydra's order: every combination of the parsed overrides' values.
    Raises HydraException for an override that is no list of values."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    [jobs] = BasicSweeper.split_arguments(overrides, None)
    return [list(words) for words in jobs]
