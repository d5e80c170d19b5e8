"""Hydra's errors as a person reads them: one line each, with the nearest known name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from hydra.errors import MissingConfigException

from seva_exp.command.config import how_to_add, how_to_sweep
from seva_exp.command.fields import fields_of, known_fields, meant
from seva_exp.command.hydra_private import base_arguments
from seva_exp.core.errors import suggest
from seva_exp.core.paths import config_dir, options_of, sweeps_dir
from seva_exp.core.spec import Json
from seva_exp.training.spec import LOSSES

PLUGINS = {
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
    "optuna": "optuna",
}
"""Launchers and sweepers of Hydra's plugins, and the extra that brings each."""
LISTS = ("aug", "score", "benchmark", "force", "filters", "tracker.tags", "dpo.lora_modules")
"""What may have several values in one run."""


def explain(error: Exception) -> str:
    """Its message in one line, with what to write instead."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return _no_config(group, name, error.options)
    if (found := re.search(r"Could not load '(hydra/\w+)/(\w+)'", text)) and found[2] in PLUGINS:
        return _not_installed(found[1], found[2])
    if found := re.search(r"Could not load '([^']+)/([^'/]+)'", text):
        return _no_config(found[1], found[2], options_of(found[1]))
    if found := re.search(r"Cannot find primary config '([^']+)'", text):
        names = sorted(file.stem for file in sweeps_dir().glob("*.yaml"))
        return f"-cn {found[1]}: no such sweep.{suggest(found[1], names)}"
    if found := re.search(r"Environment variable '(\w+)' not found", text):
        return f"${{oc.env:{found[1]}}}: the environment variable {found[1]} is not set."
    if found := re.search(r"Multiple values for (\w+)", text):
        return _twice(found[1])
    if found := re.search(r"Ambiguous value for argument '(\S+?)=(.*?)'\s", text):
        return _several(found[1], found[2])
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


def _no_config(group: str, name: str, options: Iterable[str]) -> str:
    """For ``group=name`` where the group has no such config."""
    if name in PLUGINS and group.startswith("hydra/"):
        return _not_installed(group, name)
    first, slash, rest = group.partition("/")
    if first in ("model", "data") and slash and not (config_dir() / group).is_dir():
        return _a_path(first, f"{rest}/{name}", options)
    if group == "dpo" and name in LOSSES and name not in options:
        return f"dpo={name}: is a loss: write dpo.loss={name}. dpo=NAME chooses a whole recipe."
    return f"{group}={name}: no such config.{suggest(name, options)}"


def _a_path(group: str, path: str, options: Iterable[str]) -> str:
    """For a hub id or a folder in place of a config's name."""
    said = f"{group}={path}: a config's name is needed here, and a path in {group}.path: "
    if group == "data":
        end = Path(path).suffix.lower()
        kind = "jsonl" if end in (".json", ".jsonl") else "folder" if path[:1] in "/~." else "hf"
        return f"{said}data={kind} data.path={path}."
    for name in options:
        text = (config_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8")
        if re.search(rf"^path: {re.escape(path)}\s", text, re.MULTILINE):
            return f"{group}={path}: is in the config model={name}: write that."
    known = suggest(Path(path).name, [name for name in options if name != "tiny"])
    return f"{said}model.path={path}, with model=NAME of its family.{known}"


def _twice(group: str) -> str:
    values = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith(f"+{group}=")]
    both = f"+{group}='[{','.join(values)}]'" if len(values) > 1 else "[A,B]"
    return f"{group}: is chosen already; several are one list: {both}."


def _several(key: str, values: str) -> str:
    """For ``key=a,b`` without ``-m``."""
    more = ""
    if key.lstrip("+") in LISTS:
        more = (
            f", or {key}='[{values}]' for {'both' if values.count(',') == 1 else 'all'} in one run"
        )
    elif key.lstrip("+") not in {folder.name for folder in config_dir().iterdir()}:
        more = f", or quote it as one text: \"{key}='{values}'\""
    return f"{key}={values}: add -m for a sweep{more}."


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
    here = fields_of(_composed(sys.argv[1:]))
    found = meant(key, here, fields)
    hint = f" Did you mean {' or '.join(map(repr, found))}?" if found else " --help lists all."
    return f"{key}: no such field.{hint}"


def _composed(words: list[str]) -> Json:
    """The config of this run as its groups are chosen, its fields left as they are; where that
    cannot be composed either, the one that nothing is chosen for."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    folders = {path.name for path in config_dir().iterdir() if path.is_dir()} - {"hydra"}
    chosen = [
        word if "[" in word else word.split(",")[0]
        for word in words
        if word.partition("=")[0].lstrip("+").partition("@")[0] in folders
    ]
    with initialize_config_dir(str(config_dir()), **base_arguments()):
        for tried in (chosen, []):
            try:
                values: Json = OmegaConf.to_container(compose("config", tried), resolve=False)
            except HydraException:
                continue
            return values
    return {}
