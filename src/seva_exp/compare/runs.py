"""Finished runs as a comparison tells them apart: what each is called, which are one variant."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property

from pydantic import ValidationError

from seva_exp.compare.differences import short_names
from seva_exp.core.spec import Json, canonical
from seva_exp.experiment import Experiment, Options
from seva_exp.runs.listing import RunFolder
from seva_exp.runs.reader import FinishedRun

NO_EXPERIMENT = {"machine", "tracker", "hydra", *Options.model_fields}
"""Fields and groups of a config that say where and how far it runs, and what it is called."""


class ComparedRun(FinishedRun):
    """A finished run with what makes it another variant, and what tables call it."""

    @cached_property
    def experiment(self) -> Json:
        """Of the config what makes it another variant: the experiment without its seed."""
        known = Experiment.model_fields
        return {n: v for n, v in self.config.items() if n in known and n != "seed"}

    @cached_property
    def variant(self) -> str:
        """Equal for runs that differ in nothing but their seed."""
        return canonical(self.experiment)

    @cached_property
    def _keys(self) -> dict[str, str]:
        """Of the words of its command that set something, each one's group or first field."""
        words = [word for word in self.command if "=" in word]
        return {word: re.split(r"[./@=]", word.lstrip("+~"))[0] for word in words}

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the run's command that set the experiment; none for a run of the Python
        API."""
        return tuple(word for word, key in self._keys.items() if key not in NO_EXPERIMENT)

    @property
    def user_name(self) -> str:
        """The name that a person gave it, last by ``python -m seva_exp.runs rename``; empty where
        it was made of the experiment."""
        if renamed := RunFolder(self.folder).labels["name"]:
            return str(renamed)
        named = "name" in self._keys.values() or not self.command
        return self.report.name if named else ""

    @cached_property
    def name(self) -> str:
        """The run's name in tables: made of the experiment alone, where it was not given. (The
        folder's name tells a sweep's runs apart by all that the sweep varies.)"""
        return self.user_name or self._title or self.report.name

    @property
    def _title(self) -> str:
        """What the experiment is called; empty for the config of another version."""
        try:
            return Experiment.model_validate_json(json.dumps(self.experiment)).title
        except ValidationError:
            return ""


def distinct_names(all_words: Sequence[Sequence[str]]) -> list[str]:
    """What each command says that not all of them say, with short keys: ``step=300, beta=0.1``.
    Empty where that does not tell them apart."""
    common = set.intersection(*(set(words) for words in all_words)) if all_words else set()
    apart = [[_pair(word) for word in words if word not in common] for words in all_words]
    short = short_names(dict.fromkeys(key for pairs in apart for key, _ in pairs))
    names = [", ".join(f"{short[key]}={value}" for key, value in pairs) for pairs in apart]
    return names if all(names) and len(set(names)) == len(names) else []


def _pair(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lstrip("+~").replace("/", "."), value


def groups(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Runs of one variant together, by seed; a seed once: the last run of those that measured most
    (one that stopped early does not hide a whole one)."""
    found: dict[str, dict[int, ComparedRun]] = {}
    for run in runs:
        by_seed = found.setdefault(run.variant, {})
        known = by_seed.get(run.report.seed, run)
        if len(run.report.scores) >= len(known.report.scores):
            by_seed[run.report.seed] = run
    return [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in found.values()]
