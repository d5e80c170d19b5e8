"""A run in CSV files: a folder of tables that pandas, DuckDB or a spreadsheet reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seva_exp.core.files import write_whole
from seva_exp.core.spec import Json, flatten
from seva_exp.tracking.content import Gallery, StageFile, Table
from seva_exp.tracking.folders import FolderSink
from seva_exp.tracking.sink import TrackedRun
from seva_exp.tracking.spec import CsvTracker


class CsvSink(FolderSink):
    """One run as ``history.csv`` (a row a logged step), ``summary.csv`` and ``config.csv`` (a row a
    value), ``scores.csv`` and ``files.csv``. Pictures are left to the run's own pages."""

    label = "CSV"

    def __init__(self, tracker: CsvTracker, runs: Path) -> None:
        super().__init__(tracker.folder(runs))
        self._history: History
        self._config: Json = {}
        self._summary: Json = {}

    def open(self, run: TrackedRun) -> str:
        self.take_folder(run).mkdir(parents=True, exist_ok=True)
        self._history = History(self.folder / "history.csv")
        self.fresh = not self._history.rows
        self._config = {"config": run.config}
        self._write_config()
        self._summary = {"state": "running", "key": run.key, "name": run.name, "group": run.group}
        self.summarise({"job_type": run.job_type, "tags": list(run.tags)})
        return f"{self.folder}."

    def hint(self, places: Sequence[str]) -> str:
        return ""

    def axis(self, stage: str) -> None:
        """A row has its stage and step."""

    def log(self, values: Mapping[str, float], row: int, step: int) -> int:
        stage = next(iter(values)).removesuffix("/step")
        numbers = {name.removeprefix(f"{stage}/"): value for name, value in values.items()}
        self._history.add({"stage": stage, **numbers})
        return row

    def summarise(self, values: Json) -> None:
        self._summary |= values
        write_table(self.folder / "summary.csv", ("name", "value"), self._summary.items())

    def describe(self, environment: Json) -> None:
        self._config["environment"] = environment
        self._write_config()

    def show(self, table: Table | None, galleries: Gallery, row: int) -> int:
        if table:
            write_table(self.folder / f"{table.name}.csv", table.columns, table.rows)
        return row

    def keep(self, made: Sequence[StageFile]) -> None:
        """Where the files are: they are on this machine already."""
        rows = [(one.name, one.type, one.key, one.used, str(one.path)) for one in made]
        write_table(self.folder / "files.csv", ("name", "type", "key", "used", "path"), rows)

    def close(self, failed: bool) -> None:
        self.summarise({"state": "failed" if failed else "finished"})

    def _write_config(self) -> None:
        environment = {"environment": self._config.get("environment", {})}
        rows = flatten({**self._config["config"], **environment}, between=".")
        write_table(self.folder / "config.csv", ("name", "value"), rows)


class History:
    """A table that grows by rows, one for each step of a stage; its columns may come later. A row
    is in the file when ``add`` returns; a step that comes again takes the place of its row."""

    def __init__(self, path: Path) -> None:
        """Read what is there but for half a row of a killed process. Raises ValueError where
        the file is another table."""
        self._path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        first, *others = csv.reader(io.StringIO(whole or "stage,step\n"))
        if first[:2] != ["stage", "step"]:
            raise ValueError(f"{path} has other columns than stage, step, ...; move it away")
        self._columns = first
        rows = (dict(zip(first, one, strict=False)) for one in others if len(one) > 1)
        self.rows = {(row["stage"], row["step"]): row for row in rows}
        """(stage, step) -> column -> cell."""
        self._write()

    def add(self, values: Mapping[str, Any]) -> None:
        """``values`` has stage and step, and the numbers of that step."""
        row = {name: cell(value) for name, value in values.items()}
        place = row["stage"], row["step"]
        new = [name for name in row if name not in self._columns]
        there = place in self.rows
        self.rows[place] = row
        if new or there:
            self._columns += new
            self._write()
            return
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(csv_lines([self._line(row)]))

    def _write(self) -> None:
        write_table(self._path, self._columns, map(self._line, self.rows.values()))

    def _line(self, row: Mapping[str, str]) -> list[str]:
        return [row.get(name, "") for name in self._columns]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file (RFC 4180, but for its line ends), whole or not at all."""
    write_whole(path, csv_lines([columns, *rows]), shared=True, flush=False)


def cell(value: Any) -> str:
    """A value as it stands in a cell: numbers in full, nothing for None, lists as JSON. A carriage
    return, which readers take for the row's end, is a line feed."""
    if value is None or isinstance(value, str):
        return (value or "").replace("\r\n", "\n").replace("\r", "\n")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([cell(one) for one in row] for row in rows)
    return text.getvalue()
