"""Hydra's private API, here alone: how its own sweeper makes jobs of a command's words, and what
differs between the versions that are supported. A sweep's jobs are looked at before the first
begins, and Hydra has no public way to list them.
``tests/command/test_hydra_private.py`` tells when Hydra moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

DIRNAME = "override_dirname"
"""Hydra's name of a job by its words: where a config reads it, each job is composed by itself."""
TRUSTED = ("seva_exp.*", "hydra.*", "hydra_plugins.*", "optuna.samplers.*", "optuna.pruners.*")
"""What a config may have Hydra make (``_target_``): our callback, launchers, sweepers, samplers."""


def main_arguments() -> dict[str, Any]:
    """What ``hydra.main`` is told: from Hydra 1.4 on it asks what is ``TRUSTED``."""
    return base_arguments() or {"execution_whitelist": list(TRUSTED)}


def base_arguments() -> dict[str, Any]:
    """By which rules Hydra composes, in the words of the version that is here: below 1.4 by those
    of 1.3, which are the only ones from 1.4 on."""
    import hydra

    major, minor = hydra.__version__.split(".")[:2]
    return {"version_base": "1.3"} if (int(major), int(minor)) < (1, 4) else {}


def flags() -> list[str]:
    """The flags that Hydra's command line has."""
    from hydra._internal.utils import get_args_parser

    return list(get_args_parser()._option_string_actions)


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


def sweep_configs(loader: Any, master: Any, jobs: Sequence[Sequence[str]]) -> Iterator[Any]:
    """The config of each job, by its words, as ``load_sweep_config`` composes it. Jobs that choose
    the same configs of groups are composed once, and their values set in a copy: as Hydra sets
    values, behind everything else. Raises HydraException where one cannot be composed."""
    from omegaconf import OmegaConf, flag_override

    bases: dict[tuple[str, ...], Any] = {}
    for words in jobs:
        chosen, values = _apart(loader, words)
        if any("${" in word for word in words):
            yield loader.load_sweep_config(master, list(words))
            continue
        if chosen not in bases:
            bases[chosen] = loader.load_sweep_config(master, list(chosen))
        base = bases[chosen]
        if DIRNAME in OmegaConf.to_yaml(base).replace(f"{DIRNAME}:", ""):
            yield loader.load_sweep_config(master, list(words))
            continue
        config = base.copy()
        OmegaConf.copy_cache(from_config=master, to_config=config)
        loader._apply_overrides_to_config(values, config)
        with flag_override(config, ["struct", "readonly"], [False, False]):
            config.hydra.overrides.task = list(words)
        yield config


def _apart(loader: Any, words: Sequence[str]) -> tuple[tuple[str, ...], list[Any]]:
    """Words that choose configs of groups, or are Hydra's own; the others, parsed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(words))
    values = [
        one
        for one in parsed
        if not one.is_hydra_override() and not loader.repository.group_exists(one.key_or_group)
    ]
    kept = [one for one in parsed if one not in values]
    return tuple(str(one.input_line) for one in kept), values
