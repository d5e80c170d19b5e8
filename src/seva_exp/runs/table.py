"""Finished runs as a table for pandas: a row a run, a column a number or a field of the config."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seva_exp.core.errors import InputError
from seva_exp.core.spec import Json, flatten
from seva_exp.runs.costs import costs_of
from seva_exp.runs.reader import FinishedRun

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any


def frame(paths: str | Path | Iterable[str | Path] = "runs") -> DataFrame:
    """The finished runs in these folders as a ``pandas.DataFrame``, indexed by the names of their
    folders, in the order in which they finished. A folder of runs (the default: ``runs``) or of a
    sweep stands for all in it.

    Columns: ``name``, ``seed``, ``key``, ``command``, ``finished``; the config's fields by their
    dotted names (``dpo.beta``); ``BENCHMARK/SPLIT/METRIC/MODEL`` with ``/low`` and ``/high`` for
    scores, ``.../delta`` with ``/low``, ``/high``, ``/p`` for changes of the final model;
    ``cost/answers``, ``cost/steps``, ``cost/seconds``. What a run has not is empty (NaN). Raises
    InputError where there is no finished run, and ImportError without pandas."""
    try:
        import pandas
    except ImportError:
        raise ImportError("seva_exp.runs.frame needs pandas: pip install pandas") from None
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    runs, left_out = FinishedRun.read_all([one for path in given for one in _inside(Path(path))])
    if not runs:
        why = left_out[0] if left_out else f"{', '.join(map(str, given))}: there is no run."
        raise InputError(why)
    ordered = sorted(runs, key=lambda run: run.finished_at)
    return pandas.DataFrame([row(run) for run in ordered], [run.folder.name for run in ordered])


def _inside(path: Path) -> list[Path]:
    """The folder, or the runs that lie in it."""
    if not path.is_dir() or (path / "report.json").exists():
        return [path]
    found = [one.parent for one in path.glob("*/report.json") if not one.parent.is_symlink()]
    return sorted(found) or [path]


def row(run: FinishedRun) -> Json:
    """One run's columns, as ``frame`` tells."""
    report = run.report
    values: Json = {"name": report.name, "seed": report.seed, "key": report.key}
    values |= {"command": " ".join(run.command), "finished": run.finished_at}
    fields = {key: value for key, value in run.config.items() if key not in values}
    values |= dict(flatten(fields, between="."))
    for score in report.scores:
        name = f"{score.benchmark}/{score.split}/{score.metric}/{score.model}"
        values |= {name: score.value, f"{name}/low": score.low, f"{name}/high": score.high}
    for delta in report.final_deltas:
        name = f"{delta.benchmark}/{delta.split}/{delta.metric}/delta"
        values |= {name: delta.value, f"{name}/low": delta.low, f"{name}/high": delta.high}
        values[f"{name}/p"] = delta.p
    return values | {f"cost/{name}": value for name, value in costs_of(run).items()}
