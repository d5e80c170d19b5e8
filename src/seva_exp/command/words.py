"""The words of the command line, before Hydra reads them: flags first; what is no override, or what
says two things at once, is refused with what to write."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches

from seva_exp.command.commands import COMMANDS, help_text
from seva_exp.command.hydra_private import flags
from seva_exp.command.job import BAD_INPUT, DONE
from seva_exp.core.arguments import version_text
from seva_exp.core.errors import InputError
from seva_exp.core.paths import config_dir, options_of, sweeps_dir
from seva_exp.core.printable import tell
from seva_exp.report.console import say

WITH_VALUE = (
    "-cn", "--config-name", "-cd", "--config-dir", "-cp", "--config-path", "-p", "--package",
    "-c", "--cfg", "--experimental-rerun",
)  # fmt: skip
"""Hydra's flags that take the next word as their value."""
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
"""What ``--info`` may be followed by."""
COMPLETION = ("-sc", "--shell-completion")
NOT_OURS = {
    "hydra.run.dir": "each run makes a folder of its own: machine.runs=FOLDER says where, "
    "name=NAME how it is called",
    "hydra.verbose": "nothing is logged by Hydra here: a run prints what it does; --info, "
    "--cfg job and --cfg hydra show how its config was made",
}
"""Fields of Hydra that would do nothing, or leave an empty folder -> what does what they say."""


def arguments(words: Sequence[str]) -> list[str]:
    """The command line as Hydra wants it: flags first (argparse takes overrides in one stretch
    only), ``~`` in values as a shell would expand it, sweeps/ on the search path."""
    flags, overrides = _split(words)
    named = any(flag.split("=")[0] in ("--config-dir", "-cd") for flag in flags)
    if not named and sweeps_dir().is_dir():
        flags += ["--config-dir", str(sweeps_dir())]
    return [*flags, *overrides]


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and the rest."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in WITH_VALUE:
            flags += [word, next(rest, "")]
        elif flags and flags[-1] in ("--info", "-i") and word in INFO:
            flags[-1] = f"--info={word}"
        elif word.startswith("-"):
            flags.append(word)
        else:
            home = re.match(r"([\w.@/+]+=)(~(?:/.*)?)$", word, re.DOTALL)
            overrides.append(home[1] + os.path.expanduser(home[2]) if home else word)
    return flags, overrides


def check_words(words: Sequence[str], known_flags: Sequence[str]) -> None:
    """Raises InputError for a flag that is not among the ``known_flags`` of Hydra, a word that is
    no override, views that are added and replaced at once, and fields of Hydra that do nothing."""
    flags, overrides = _split(words)
    if any(flag in COMPLETION for flag in flags):
        return
    values = {flags[i + 1] for i, flag in enumerate(flags[:-1]) if flag in WITH_VALUE}
    for flag in flags:
        if flag not in values and not _is_flag(flag, known_flags):
            raise InputError(_unknown_flag(flag, overrides))
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if "=" not in word and not word.startswith("~"):
            raise InputError(_stray(word, overrides))
        if key in NOT_OURS:
            raise InputError(f"{key}: {NOT_OURS[key]}.")
    for group in ("aug", "score"):
        _check_added(group, overrides)


def _is_flag(word: str, known: Sequence[str]) -> bool:
    """As argparse has it: whole, cut short where it is long, with its value behind it."""
    name = word.partition("=")[0]
    long = name.startswith("--") and any(one.startswith(name) for one in known)
    return name in known or long or any(len(one) == 2 and word.startswith(one) for one in known)


def _unknown_flag(flag: str, overrides: Sequence[str]) -> str:
    name, _, value = flag.lstrip("-").partition("=")
    name = name.replace("-", "_")
    given = value or next((word for word in overrides if "=" not in word), "")
    plus = "+" if name in ("aug", "score") else ""
    written = f"{plus}{name}={given or 'true'}"
    if name in ("h", "help", "usage"):
        written = "--help"
    return f"{flag}: no such flag. Options are written without dashes: {written} (--help)."


def _stray(word: str, overrides: Sequence[str]) -> str:
    """For a word without "="."""
    if word in COMMANDS:
        rest = " ".join(overrides[overrides.index(word) + 1 :])
        return f"{word}: is a command of its own: python -m seva_exp.{word} {rest}".rstrip()
    if word in ("help", "version"):
        return f"{word}: write --{word}."
    groups = sorted(folder.name for folder in config_dir().iterdir() if folder.is_dir())
    for group in ("aug", "experiment", *groups):
        if word in options_of(group):
            plus = "+" if group in ("aug", "score") else ""
            return f"{word}: is one of the group {group}: write {plus}{group}={word}."
    if (config_dir() / word).is_dir() or word in groups:
        return f"{word}: is a config group: write {word}=NAME (--help lists the names)."
    if (sweeps_dir() / f"{word}.yaml").is_file():
        return f"{word}: is a sweep: python -m seva_exp -cn {word}"
    near = get_close_matches(word, COMMANDS, n=1, cutoff=0.7)
    hint = f" Did you mean python -m seva_exp.{near[0]}?" if near else ""
    return (
        f"{word}: is neither FIELD=VALUE nor GROUP=NAME (quote a value with blanks).{hint} --help "
        "lists groups, fields and the other commands."
    )


def _check_added(group: str, overrides: Sequence[str]) -> None:
    """``+aug=A aug=B`` is B alone for Hydra, and reads as both."""
    added = [word.partition("=")[2] for word in overrides if word.startswith(f"+{group}=")]
    replaced = [word.partition("=")[2] for word in overrides if word.startswith(f"{group}=")]
    if added and replaced:
        both = ",".join(value.strip("[]") for value in (*added, *replaced))
        raise InputError(
            f"+{group}={added[0]} and {group}={replaced[0]}: the second takes the place of the "
            f"first. Both: +{group}='[{both}]'; one alone: +{group}={replaced[-1]}."
        )


def tell_at_once(words: list[str]) -> None:
    """What needs no config: the versions; what is wrong with the words themselves. ``--help``
    begins with our part; Hydra adds the config. Raises SystemExit where that is all."""
    if "--version" in words:
        say(version_text())
        raise SystemExit(DONE)
    try:
        check_words(words, flags())
    except InputError as error:
        tell(str(error))
        raise SystemExit(BAD_INPUT) from None
    if {"--help", "-h"} & {*words}:
        say(help_text())
