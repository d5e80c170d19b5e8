"""The harness's numbers, read back: rows of their own, in a table of their own, in a file of their
own. They are never rows of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seva_exp.core.files import whole_file
from seva_exp.core.records import ALIGNED, BASE, from_json
from seva_exp.core.spec import Json
from seva_exp.report.console import short, table
from seva_exp.report.significance import arrow, is_number

PROTOCOL = "lmms_eval"
FILE = "lmms_eval.json"


@dataclass(frozen=True)
class HarnessScore:
    """A number of the harness, in the harness's own unit. ``filter`` is its name of how answers
    are read; ``limit``: only so many questions were asked."""

    model: str
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    n: int | None
    better: str
    limit: int | None
    dtype: str
    harness: str
    protocol: str = PROTOCOL


def read_results(found: Json, **fields: Any) -> list[HarnessScore]:
    """Rows of a results file. What is no number (an alias, a table for upload) is left out."""
    rows = []
    for task, values in found["results"].items():
        ups = found.get("higher_is_better", {}).get(task) or {}
        n = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, _, filter_ = key.partition(",")
            if not filter_ or "_stderr" in metric or not is_number(value):
                continue
            stderr = values.get(f"{metric}_stderr,{filter_}")
            better = {True: "higher", False: "lower", None: "neutral"}[ups.get(metric)]
            error = float(stderr) if is_number(stderr) else None
            rows.append(
                HarnessScore(
                    task=task, metric=metric, filter=filter_, value=float(value), stderr=error,
                    n=n, better=better, **fields,
                )
            )  # fmt: skip
    return rows


def keep(folder: Path, rows: Sequence[HarnessScore]) -> None:
    """Into the run's folder: they take the place of earlier numbers of the same model and task;
    those of other tasks stay."""
    file = folder / FILE
    new = {(row.model, row.task) for row in rows}
    earlier = rows_of(folder) if file.exists() else []
    stay = [row for row in earlier if (row.model, row.task) not in new]
    content = {"protocol": PROTOCOL, "scores": [asdict(row) for row in (*stay, *rows)]}
    with whole_file(file) as out:
        out.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def rows_of(folder: Path) -> list[HarnessScore]:
    """The rows that ``keep`` has written."""
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return [from_json(HarnessScore, row) for row in content["scores"]]


def result_table(rows: Iterable[HarnessScore]) -> str:
    """A line a number: base and aligned with the harness's standard errors, and the change."""
    by_key: dict[tuple[str, str, str], dict[str, HarnessScore]] = {}
    for row in rows:
        by_key.setdefault((row.task, row.metric, row.filter), {})[row.model] = row
    lines = [_line(key, found) for key, found in by_key.items()]
    return table(("task", "metric", "base", "aligned", "change", "n"), lines, right=range(2, 6))


def _line(key: tuple[str, str, str], found: dict[str, HarnessScore]) -> tuple[str, ...]:
    task, metric, filter_ = key
    any_row = next(iter(found.values()))
    name = metric if filter_ == "none" else f"{metric} ({filter_})"
    base, aligned = found.get(BASE), found.get(ALIGNED)
    change = f"{aligned.value - base.value:+.4g}" if base and aligned else ""
    n = "" if any_row.n is None else str(any_row.n)
    cells = (_cell(base), _cell(aligned), change, n)
    return (task, f"{name} {arrow(any_row.better)}".strip(), *cells)


def _cell(row: HarnessScore | None) -> str:
    if row is None:
        return ""
    return short(row.value) + (f" ± {row.stderr:.2g}" if row.stderr is not None else "")
