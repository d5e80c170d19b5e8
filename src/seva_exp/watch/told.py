"""What the page shows of a folder of runs, by what runs write down. Nothing is written."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from seva_exp.core.errors import InputError
from seva_exp.core.printable import printable
from seva_exp.core.records import Pair, from_json
from seva_exp.core.spec import Json
from seva_exp.core.store import KEY_LENGTH
from seva_exp.experiment.so_far import pairs_so_far
from seva_exp.runs.links import followed
from seva_exp.runs.listing import RunFolder, Unreadable, runs_in
from seva_exp.runs.scores import main_scores
from seva_exp.training.spec import HELD_OUT

MOST_RUNS, MOST_PAIRS, MOST_POINTS, MOST_LINES = 300, 6, 300, 40
TAIL = 2**20
"""Bytes of a growing file that are read, from its end."""
FEW = 20_000
"""Samples up to which pairs are told before the stage that makes them is done: all answers are
read for that."""
MOST_KEPT = 100
"""Answers that are kept."""
FRESH, FRESH_PAIRS = 1.0, 10.0
"""Seconds for which what was read is told again."""
FILES = (
    "report.html",
    "changed.html",
    "words.html",
    "report.json",
    "config.yaml",
    "run.log",
    "error.txt",
)
"""What of a run's folder the page links to."""
OF_STEPS = ("loss", "rewards/margins", "rewards/accuracies")
CURVES = (*OF_STEPS, *(HELD_OUT + name for name in OF_STEPS))
"""The numbers of a training that are drawn as they grow."""


@dataclass
class Told:
    """Of the runs below ``root``. Safe for several threads."""

    root: Path
    _known: dict[str, tuple[float, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def runs(self) -> list[Json]:
        """The latest runs, each under its ``id``: its folder, from the root on."""
        rows: list[Json] = self._kept("runs", FRESH, self._runs)
        return rows

    def run(self, id: str) -> Json | None:
        """All that is told of one run; None for an ``id`` that is none of ``runs``."""
        folder = self.folder(id)
        if folder is None:
            return None
        found: Json = self._kept(f"run {id}", FRESH, lambda: self._run(RunFolder(folder)))
        return found

    def folder(self, id: str) -> Path | None:
        """The folder of a run that is in the list, by equality alone: no path is made of ``id``."""
        return next((self.root / row["id"] for row in self.runs() if row["id"] == id), None)

    def _kept(self, name: str, seconds: float, read: Callable[[], Any]) -> Any:
        with self._lock:
            known = self._known.get(name)
            if known is None or time.monotonic() - known[0] > seconds:
                known = (time.monotonic(), read())
                if len(self._known) >= MOST_KEPT:
                    self._known.clear()
                self._known[name] = known
            return known[1]

    def _runs(self) -> list[Json]:
        found = []
        for run in runs_in(self.root)[:MOST_RUNS]:
            with suppress(OSError):  # removed meanwhile
                found.append(shown(self._row(run)))
        return found

    def _row(self, run: RunFolder) -> Json:
        told, report = run.told, run.report if run.state == "done" else None
        now = asdict(told) if told else {}
        return {
            "id": os.fspath(run.path.relative_to(self.root)),
            "name": run.name,
            "state": run.state,
            "began": run.began.timestamp(),
            "ended": now.get("ended"),
            **{n: now.get(n) or "" for n in ("stage", "part", "unit", "message")},
            **{n: now.get(n) or 0 for n in ("done", "total", "stage_began", "seed")},
            **{n: run.facts[n] for n in ("method", "views", "model")},
            "tags": run.tags,
            "pairs": report.pairs.kept if report and report.pairs else None,
            "scores": [one.to_json() | {"text": one.text} for one in main_scores(report)]
            if report
            else [],
        }

    def _run(self, run: RunFolder) -> Json:
        try:
            stages = list(_stages(run))
        except Unreadable as error:
            stages = [{"name": str(error), "how": "", "seconds": None}]
        return shown(
            self._row(run)
            | {
                "now": time.time(),
                "command": " ".join(run.command),
                "stages": stages,
                "curves": curves(run.path / "metrics.jsonl"),
                "pairs_shown": self._kept_pairs(run),
                "log": list(last_lines(run.path / "run.log", MOST_LINES)),
                "files": [name for name in FILES if is_plain(run.path / name)],
            }
        )

    def _kept_pairs(self, run: RunFolder) -> list[Json]:
        """Kept for longer: they may take a while to read."""
        name = f"pairs {run.path}"
        known = self._known.get(name)
        if known is None or time.monotonic() - known[0] > FRESH_PAIRS:
            self._known[name] = (time.monotonic(), first_pairs(run))
        rows: list[Json] = self._known[name][1]
        return rows


def shown(value: Any) -> Any:
    """``value`` with all its texts printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {shown(name): shown(one) for name, one in value.items()}
    return [shown(one) for one in value] if isinstance(value, list | tuple) else value


def is_plain(file: Path) -> bool:
    """A file of the run's own: no link, which could lead anywhere."""
    return file.is_file() and not file.is_symlink()


def _stages(run: RunFolder) -> Iterator[Json]:
    """Each with what has become of it. A stage that is linked is there."""
    report, working = run.report, run.state == "running"
    made = {one.name: one for one in report.stages} if report else {}
    for row in run.planned:
        label, one = row["name"], made.get(row["name"])
        if one:
            how = "reused" if one.cached else "made"
        elif os.path.lexists(run.path / label):
            how = "reused" if row.get("cached") else "made"
        elif run.told and run.told.stage == label:
            how = "running" if working else "stopped"
        else:
            how = "waits" if working else "not made"
        yield {"name": label, "how": how, "seconds": one.seconds if one else None}


def curves(file: Path) -> list[Json]:
    """Stage by stage the numbers that are drawn, thinned: ``points`` are (step, value)."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for line in last_lines(file):
        with suppress(ValueError, TypeError, KeyError, AttributeError):  # torn, or another's
            row = json.loads(line)
            for name in CURVES:
                if name in row:
                    point = (float(row["step"]), float(row[name]))
                    found.setdefault((str(row["stage"]), name), []).append(point)
    return [
        {"stage": stage, "name": name, "points": thinned(points)}
        for (stage, name), points in found.items()
    ]


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every n-th point and the last, of those that are numbers."""
    points = [point for point in points if all(abs(x) < float("inf") for x in point)]
    step = -(-len(points) // MOST_POINTS) or 1
    return points[::step] + (points[-1:] if (len(points) - 1) % step else [])


def last_lines(file: Path, most: int | None = None) -> list[str]:
    """Whole lines from the end of a file that may grow meanwhile; none where there is no file."""
    if not is_plain(file):
        return []
    with suppress(OSError), file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - TAIL))
        lines = opened.read().split(b"\n")[1 if size > TAIL else 0 : -1]
        return [line.decode("utf-8", "replace") for line in lines[-most if most else 0 :]]
    return []


def first_pairs(run: RunFolder) -> list[Json]:
    """Of the stage that made pairs last; before that, of what was answered so far."""
    with suppress(InputError, OSError, ValueError, TypeError, KeyError):
        made = [
            (label, key)
            for label, key in run.keys.items()
            if label.partition(".")[0] == "pairs" and os.path.lexists(run.path / label)
        ]
        for label, key in made[-1:]:
            artifact = followed(run.path / label)
            if artifact.name == key[:KEY_LENGTH]:  # and nothing else that a link leads to
                return list(_read(artifact / "pairs.jsonl"))
        if run.state == "running":
            return list(_so_far(run))
    return []


def _read(file: Path) -> Iterator[Json]:
    with file.open(encoding="utf-8") as lines:
        for line, _ in zip(lines, range(MOST_PAIRS), strict=False):
            yield _pair(from_json(Pair, json.loads(line)))


def _so_far(run: RunFolder) -> Iterator[Json]:
    samples = run.config.get("data", {}).get("samples")
    if samples is None or samples <= FEW:
        found = pairs_so_far(run.path, MOST_PAIRS)
        yield from map(_pair, found.latest)


def _pair(pair: Pair) -> Json:
    rejected = zip(pair.views, pair.rejected, strict=True)
    return {
        "id": pair.sample_id,
        "question": pair.question,
        "chosen": pair.chosen,
        "rejected": [{"view": view, "text": text} for view, text in rejected],
    }
