"""Hydra's errors as a person reads them: one line each, with the nearest known name."""

from __future__ import annotations

import re
import sys

from hydra.errors import MissingConfigException

from seva_exp.command.config import how_to_add, how_to_sweep, known_fields
from seva_exp.core.errors import nearest, suggest
from seva_exp.core.paths import config_dir, options_of, sweeps_dir

PLUGINS = {
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
    "optuna": "optuna",
}
"""Launchers and sweepers of Hydra's plugins, and the extra that brings each."""


def explain(error: Exception) -> str:
    """Its message in one line, with what to write instead."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if name in PLUGINS:
            return _not_installed(group, name)
        match = nearest(name, error.options)
        hint = f" Did you mean '{match}'?" if match else ""
        return f"{group}={name}: no such config.{hint} Known: {', '.join(error.options)}."
    if (found := re.search(r"Could not load '(hydra/\w+)/(\w+)'", text)) and found[2] in PLUGINS:
        return _not_installed(found[1], found[2])
    if found := re.search(r"Cannot find primary config '([^']+)'", text):
        names = sorted(file.stem for file in sweeps_dir().glob("*.yaml"))
        return f"-cn {found[1]}: no such sweep.{suggest(found[1], names)}"
    if found := re.search(r"Environment variable '(\w+)' not found", text):
        return f"${{oc.env:{found[1]}}}: the environment variable {found[1]} is not set."
    if found := re.search(r"Multiple values for (\w+)", text):
        return f"{found[1]}: is chosen already; write it without '+', several as a list: [A,B]."
    if found := re.search(r"An item is already at '(sweeps?)'", text):
        return how_to_sweep(found[1])
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"{found[1]}: is in the config already; write it without '+'."
    if "Config group override must be" in text:
        groups = {folder.name for folder in config_dir().iterdir() if folder.is_dir()}
        keys = [word.partition("=")[0].lstrip("+") for word in sys.argv[1:]]
        named = ", ".join(key for key in keys if key in groups)
        return f"{named}: a config group takes the name of one of its configs (--help lists them)."
    if "hydra.cc/docs" in text and "grammar" in text:
        where = re.sub(r"^\w+Exception: ", "", text.splitlines()[0])
        return f"{where}: quote values with special characters: \"field='value'\"."
    if found := re.search(r"Could not override '([^'@]+)", text):
        return _explain_key(found[1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:3])


def _not_installed(group: str, name: str) -> str:
    return f"{group}={name}: its plugin is not installed: pip install 'seva_exp[{PLUGINS[name]}]'."


def _explain_key(key: str) -> str:
    """Why ``key=value`` fits nothing in the config."""
    group, *rest = key.split(".")
    fields = known_fields()
    if group in ("aug", "benchmark") and rest and rest[0] in options_of(group) and key in fields:
        return f"{key}: this {group} is not in the config. {how_to_add(group, rest[0])}"
    if key.startswith("method.scores.") and key in fields:
        return f"{key}: this score is not in the config. {how_to_add('score', rest[1])}"
    if key == "score":
        return f"score: scores are added: write +score=NAME.{suggest('', options_of('score'))}"
    if key == "aug":
        return f"aug: negative views are added: write +aug=NAME.{suggest('', options_of('aug'))}"
    if key in fields and group == "instructions":
        return f"{key}: there are no instructions in the config. Add data@instructions=instruct."
    if key in fields:
        return f"{key}: the chosen {group} has no such field; another {group}=NAME has."
    match = nearest(key, fields)
    hint = f" Did you mean '{match}'?" if match else ""
    return f"{key}: no such field.{hint}"
