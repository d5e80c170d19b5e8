"""A run's folder, as far as it is compared."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from seva_exp.compare.differences import short_names
from seva_exp.core.errors import InputError
from seva_exp.core.paths import MARKER
from seva_exp.core.records import Report
from seva_exp.core.spec import Json, canonical
from seva_exp.experiment import Experiment, Options
from seva_exp.runs.folder import read_folder

NO_EXPERIMENT = {"machine", "tracker", "hydra", *Options.model_fields}
"""Fields and groups of a config that say where and how far it runs, and what it is called."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run left: its folder, its ``report.json``, and of its config what makes it another
    variant: the experiment without its seed."""

    folder: Path
    report: Report
    config: Json
    root: str | None = None
    """Where the benchmarks' official files lay, if the config told."""
    words: tuple[str, ...] = ()
    """What its command said of the experiment; empty for a run of the Python API."""
    given_name: str = ""
    """The name that a person gave it; empty where it was made of the experiment."""
    title: str = ""
    """What the experiment is called, where its config can be read."""

    @property
    def name(self) -> str:
        """What tables call it: made of the experiment alone, where it was not given. (The folder's
        name tells a sweep's runs apart by all that the sweep varies.)"""
        return self.given_name or self.title or self.report.name

    @property
    def variant(self) -> str:
        """Equal for runs that differ in nothing but their seed."""
        return canonical(self.config)

    def key(self, label: str) -> str:
        """The key of the stage of this label; empty when the run has none."""
        return next((stage.key for stage in self.report.stages if stage.name == label), "")

    def training(self) -> Iterator[Json]:
        """Its logged steps."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)


def read_run(folder: Path) -> FinishedRun:
    """Raises InputError when the folder holds no finished run."""
    report, config = read_folder(folder)
    kept = {n: v for n, v in config.items() if n in Experiment.model_fields and n != "seed"}
    command = folder / "overrides.txt"
    words = shlex.split(command.read_text(encoding="utf-8")) if command.exists() else []
    keys = {word: re.split(r"[./@=]", word.lstrip("+~"))[0] for word in words if "=" in word}
    said = tuple(word for word, key in keys.items() if key not in NO_EXPERIMENT)
    named = report.name if "name" in keys.values() or not words else ""
    root = config.get("data_root")
    return FinishedRun(folder, report, kept, root, said, named, _title(kept))


def _title(config: Json) -> str:
    """Empty for the config of another version."""
    try:
        return Experiment.model_validate_json(json.dumps(config)).title
    except ValidationError:
        return ""


def told_apart(all_words: Sequence[Sequence[str]]) -> list[str]:
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


def _beside_runs(folder: Path) -> bool:
    """Whether it lies where runs do and is none: the store, the sweeps' own folders."""
    there = folder.is_dir() and (folder.parent / MARKER).exists()
    return there and not (folder / "config.yaml").exists()


def _runs_of_sweep(folder: Path) -> list[Path]:
    """Those that are done, in the jobs' order (``sweep.Record``); empty when it is no sweep's."""
    files = sorted(folder.glob("jobs/*.json"), key=lambda file: (len(file.stem), file.stem))
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return [Path(row["ended"]["run"]) for row in rows if row["state"] == "done"]


def groups(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """Runs of one variant together, by seed; a seed once: the last run of those that measured most
    (one that stopped early does not hide a whole one)."""
    found: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        by_seed = found.setdefault(run.variant, {})
        known = by_seed.get(run.report.seed, run)
        if len(run.report.scores) >= len(known.report.scores):
            by_seed[run.report.seed] = run
    return [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in found.values()]


def read_runs(folders: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """The finished runs, each folder once, and why others are left out: one that is not finished
    does not hide the rest. A sweep's folder stands for its runs. What else lies in a folder of runs
    (its store) is passed over, so that ``runs/*`` can be given."""
    runs, left_out = [], []
    given = [run for folder in folders for run in _runs_of_sweep(folder) or [folder]]
    for folder in dict.fromkeys(folder.resolve() for folder in given):
        if _beside_runs(folder):
            continue
        try:
            runs.append(read_run(folder))
        except InputError as error:
            left_out.append(str(error))
    return runs, left_out
