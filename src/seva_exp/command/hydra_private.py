"""Hydra's private API, here alone: how its own sweeper makes jobs of a command's words. A sweep's
jobs are looked at before the first begins, and Hydra has no public way to list them.
``tests/command/test_hydra_private.py`` tells when Hydra moves."""

from __future__ import annotations

from typing import Any


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
