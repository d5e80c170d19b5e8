"""Plugins as Hydra sees them: each class is a choice of its group, as if it had a file in conf/."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from seva_exp import plugins
from seva_exp.command.job import BAD_INPUT
from seva_exp.core.errors import InputError
from seva_exp.core.printable import tell
from seva_exp.core.redact import hide
from seva_exp.experiment import Options

FIELD = "plugins="


def offer(words: Sequence[str]) -> None:
    """Load what the command line names and what is installed, before Hydra composes. What is wrong
    with it ends the command."""
    try:
        plugins.load_installed()
        plugins.load(named(words))
    except InputError as error:
        tell(str(error))
        sys.exit(BAD_INPUT)
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, name, package, values in plugins.configs():
        store.store(name, values, group=group, package=package, provider="plugins")


def named(words: Sequence[str]) -> tuple[str, ...]:
    """The modules of the last ``plugins=...`` of a command line."""
    given = [word.lstrip("+") for word in words if word.lstrip("+").startswith(FIELD)]
    if not given:
        return ()
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_override(given[-1]).value()
    except HydraException:
        value = None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(
            f"{hide(given[-1])}: names of modules are needed: plugins=[my_views], or a path such "
            "as plugins=[views/mine.py]."
        )
    return Options(plugins=tuple(map(str, value))).plugins
