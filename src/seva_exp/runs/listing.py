"""Runs as lists show them, whatever has become of them: read from their folders alone, lightly, so
that two hundred are told in a second. What stages made is read by ``reader``."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from seva_exp.core.errors import InputError, nearest
from seva_exp.core.files import write_whole
from seva_exp.core.machine import Machine
from seva_exp.core.paths import MARKER
from seva_exp.core.printable import one_line
from seva_exp.core.records import Report
from seva_exp.core.sharing import is_held
from seva_exp.core.spec import Json
from seva_exp.core.store import KEY_LENGTH
from seva_exp.runs.links import followed
from seva_exp.runs.state import State, facts_of, read_state

CONFIG, PLAN, REPORT, ERROR = "config.yaml", "plan.json", "report.json", "error.txt"
LABELS = "labels.json"
"""What a person called a run afterwards: ``{"name": ..., "tags": [...]}``."""
REMOVED = ".removed-"
"""How the name of a run's folder begins that is being removed."""
DEEPEST = 4
"""Folders between a folder of runs and a run in it (of a sweep that keeps its runs together)."""
_DATED = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)_(.+)", re.DOTALL)
_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(InputError):
    """A file of a run's folder is damaged or may not be read."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, finished or not. What a file does not tell is empty; what is damaged in a way
    that matters raises ``Unreadable``."""

    path: Path

    @cached_property
    def _dated(self) -> tuple[str, str]:
        found = _DATED.fullmatch(self.path.name)
        return (found[1], found[2]) if found else ("", self.path.name)

    @cached_property
    def began(self) -> datetime:
        """When it began: by its folder's name, else by that of the first file."""
        if self._dated[0]:
            try:
                return datetime.strptime(self._dated[0], "%Y-%m-%d_%H-%M-%S")
            except ValueError:
                pass
        file = self.path / CONFIG
        return datetime.fromtimestamp((file if file.exists() else self.path).stat().st_mtime)

    @cached_property
    def told(self) -> State | None:
        """What ``state.json`` says; None for a run of an earlier version."""
        return read_state(self.path)

    @cached_property
    def state(self) -> str:
        """``running``, ``done``, ``failed`` or ``stopped``."""
        if self.told and not (self.told.state != "done" and (self.path / REPORT).exists()):
            return self.told.state
        if (self.path / REPORT).exists():
            return "done"
        if (self.path / ERROR).exists():
            return "failed"
        return "running" if self.told is None and self._is_made else "stopped"

    @property
    def _is_made(self) -> bool:
        """Whether a process makes a stage of a run that has no state: an earlier version began
        it."""
        locks = (self.store or self.path.parent / "store") / "locks"
        try:
            return any(
                is_held(locks / f"{row['kind']}-{row['key'][:KEY_LENGTH]}.lock")
                for row in self.planned
            )
        except (OSError, Unreadable, KeyError, TypeError):
            return False

    @cached_property
    def labels(self) -> Json:
        """The name and the tags that a person gave it afterwards."""
        try:
            row = json.loads((self.path / LABELS).read_bytes())
            tags = [str(tag) for tag in row.get("tags", ())]
            return {"name": str(row.get("name") or ""), "tags": tags}
        except (OSError, ValueError, AttributeError, TypeError):
            return {"name": "", "tags": []}

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.labels["name"]) or (self.told.name if self.told else "") or self._dated[1]

    @property
    def names(self) -> list[str]:
        """All that it can be called by, without its date."""
        known = [self.labels["name"], self.told.name if self.told else "", self._dated[1]]
        return list(dict.fromkeys(name for name in known if name))

    @property
    def tags(self) -> list[str]:
        return list(self.labels["tags"])

    @cached_property
    def config(self) -> Json:
        """The resolved config; empty where the file is not there. Raises Unreadable."""
        row = self._read(CONFIG, lambda content: yaml.load(content, _Loader))
        return row if isinstance(row, dict) else {}

    @cached_property
    def facts(self) -> Json:
        """``method``, ``views`` and ``model``, for a list."""
        if self.told and self.told.method:
            told = self.told
            return {"method": told.method, "views": told.views, "model": told.model}
        try:
            return facts_of(self.config)
        except Unreadable:
            return facts_of({})

    @cached_property
    def report(self) -> Report | None:
        """None where there is none, or none that this version can read."""
        try:
            row = self._read(REPORT, json.loads)
            return Report.from_json(row) if row else None
        except (Unreadable, KeyError, TypeError, AttributeError):
            return None

    @cached_property
    def planned(self) -> list[Json]:
        """The rows of the plan: ``name``, ``key``, ``cached``, ``inputs``. Raises Unreadable."""
        rows = self._read(PLAN, json.loads) or []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Unreadable(f"{self.path / PLAN}: is damaged (no list of stages).")
        return rows

    @cached_property
    def keys(self) -> dict[str, str]:
        """Label -> key of its stages: those of the report, and the plan's for what is not made
        yet. Raises Unreadable."""
        row = self._read(REPORT, json.loads) or {}
        try:
            found = {one["name"]: str(one["key"]) for one in self.planned}
            return found | {one["name"]: str(one["key"]) for one in row.get("stages", ())}
        except (TypeError, KeyError, AttributeError) as error:
            why = f"is damaged ({type(error).__name__})"
            raise Unreadable(f"{self.path}: {PLAN} or {REPORT} {why}.") from None

    def named(self) -> set[str]:
        """The first characters of the keys of all that this run stands on in any store: by its
        plan, its report, its links, and what its config names. Raises Unreadable."""
        found = {key[:KEY_LENGTH] for key in self.keys.values()}
        config = self._read(CONFIG, lambda content: content.decode("utf-8", "replace")) or ""
        found.update(_KEY.findall(config))
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    found.update(_KEY.findall(os.readlink(entry.path)))
                elif entry.is_file() and entry.name not in (CONFIG, PLAN, REPORT):
                    found.update(_KEY.findall(str(followed(Path(entry.path)))))
        return found

    def artifact(self, label: str) -> Path:
        """Where the artifact of a stage lies, or lay."""
        return followed(self.path / label)

    @cached_property
    def store(self) -> Path | None:
        """That in which its first finished stage came to lie; None where none did."""
        links = (self.path / label for label in self.keys)
        link = next((one for one in links if os.path.lexists(one)), None)
        return followed(link).parents[1] if link else None

    @cached_property
    def command(self) -> tuple[str, ...]:
        """The words that began it; empty for a run of the Python API."""
        file = self.path / "overrides.txt"
        return tuple(shlex.split(file.read_text(encoding="utf-8"))) if file.exists() else ()

    def _read(self, name: str, parse: Any) -> Any:
        """None where the file is not there."""
        file = self.path / name
        try:
            return parse(file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(f"{file}: may not be read ({error.strerror}).") from None
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise Unreadable(f"{file}: is damaged ({type(error).__name__}).") from None

    def relabel(
        self, name: str | None = None, add: Sequence[str] = (), less: Sequence[str] = ()
    ) -> None:
        """Write another name, further tags, fewer tags."""
        with FileLock(self.path / f".{LABELS}.lock"):
            now = RunFolder(self.path).labels
            tags = [tag for tag in dict.fromkeys([*now["tags"], *add]) if tag not in less]
            row = {"name": now["name"] if name is None else name, "tags": tags}
            write_whole(self.path / LABELS, json.dumps(row, ensure_ascii=False) + "\n")
        self.__dict__.pop("labels", None)


def is_run(folder: Path) -> bool:
    """Whether a folder (no link) is a run's."""
    return any((folder / name).exists() for name in (CONFIG, PLAN, REPORT)) or bool(
        _DATED.fullmatch(folder.name) and (folder.parent / MARKER).exists()
    )


def runs_in(root: Path) -> list[RunFolder]:
    """All runs below a folder, the latest first; links are not followed, and stores not entered.
    Raises InputError where there is no such folder."""
    if not root.is_dir():
        raise InputError(f"--runs {root}: no such folder. Give the folder of the runs' folders.")
    found = [RunFolder(path) for path in _below(root, DEEPEST)]
    return sorted(found, key=lambda run: (run.began, run.path.name), reverse=True)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        inner = sorted(one.path for one in entries if one.is_dir(follow_symlinks=False))
    for path in map(Path, inner):
        if path.name.startswith("."):
            continue
        if is_run(path):
            yield path
        elif depth > 1 and not (path / "locks").is_dir():
            try:
                yield from _below(path, depth - 1)
            except PermissionError as error:
                raise InputError(f"{path}: may not be read ({error.strerror}).") from None


def sweep_folder(said: str, root: Path) -> Path | None:
    """The folder of a sweep (``multirun/DATE``), where that is what a person means."""
    places = (Path(said).expanduser(), root / said, root / "multirun" / said) if said else ()
    return next((one for one in places if (one / "jobs").is_dir()), None)


def find_run(said: str | Path, root: Path) -> RunFolder:
    """The run that a person means: a path (``runs/latest`` too), its folder's name, its name, or
    the beginning of either. Raises InputError for none and for several, with those near."""
    text = os.fspath(said).rstrip("/") or os.fspath(said)
    for place in (Path(text).expanduser(), root / text) if text else ():
        if os.path.lexists(place):
            folder = followed(place)
            if folder.is_dir() and is_run(folder):
                return RunFolder(folder)
            if not folder.exists():
                raise InputError(f"{text}: leads to {folder}, which is gone.")
            if folder != followed(root):
                known = f"Give one of the runs in it, such as {text}/NAME"
                raise InputError(f"{text}: holds no run. {known}, or a run's name.")
    if os.sep in text:
        near = nearest(Path(text).name, _names_in(Path(text).expanduser().parent))
        hint = f" Did you mean '{one_line(str(Path(text).parent / near))}'?" if near else ""
        raise InputError(f"{one_line(text)}: holds no run: there is no such folder.{hint}")
    runs = runs_in(root)
    exact = [run for run in runs if text in run.names]
    begun = [run for run in runs if any(_begins(n, text) for n in (run.path.name, *run.names))]
    found = exact or begun
    if len(found) == 1:
        return found[0]
    if not found:
        near = nearest(text, [name for run in runs for name in (*run.names, run.path.name)])
        hint = f" Did you mean '{one_line(near)}'?" if near else ""
        raise InputError(
            f"{one_line(text)}: no run in {root} is called so.{hint} "
            "python -m seva_exp.runs ls shows them."
        )
    listed = ", ".join(one_line(run.path.name) for run in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise InputError(
        f"{one_line(text)}: {len(found)} runs are called so: {listed}{more}. Give one of these."
    )


def run_folder(said: str | Path) -> Path:
    """The folder of the run that a person names to a command: a path, or as ``find_run`` has it a
    name of a run in ``runs/``. A path that is not there is returned as it is. Raises InputError
    for a name that is none's or several runs'."""
    path, root = Path(said).expanduser(), Machine().runs_root()
    if os.path.lexists(path) or os.sep in os.fspath(said) or not root.is_dir():
        return path
    return find_run(said, root).path


def run_argument(parser: argparse.ArgumentParser) -> None:
    """What ``run_folder`` reads."""
    parser.add_argument(
        "run", metavar="RUN", help="a finished run: its folder or name, such as runs/latest"
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _begins(name: str, text: str) -> bool:
    return bool(text) and name.casefold().startswith(text.casefold())
