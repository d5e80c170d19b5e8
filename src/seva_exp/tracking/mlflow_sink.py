"""A run in MLflow: on a tracking server, or in a database on this machine."""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from filelock import FileLock

from seva_exp.core.redact import hide
from seva_exp.core.spec import Json, flatten
from seva_exp.report.significance import is_number
from seva_exp.tracking.content import Gallery, StageFile, Table
from seva_exp.tracking.csv_sink import cell, csv_lines
from seva_exp.tracking.host import answers
from seva_exp.tracking.sink import Sink, TrackedRun
from seva_exp.tracking.spec import MlflowTracker

KEY = "seva_exp.key"
"""The tag by which a run is found again."""
PARAM_LENGTH, TAG_LENGTH, NAME_LENGTH, AT_ONCE = 6000, 5000, 250, 100
"""Most characters of a param's and a tag's value, and of a name; most params of one call."""
_NOT_IN_NAMES = re.compile(r"[^\w/.\- ]")
"""What MLflow takes in no name (colons it takes on some systems)."""
_QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Of a server that hangs MLflow would wait for a quarter of an hour: 120 s, seven times more."""
_QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


class MlflowSink(Sink):
    """One MLflow run, found by the run's key. A training step stands at its own number, a value of
    the whole run at step 0; config values are params, which MLflow never changes."""

    label = "MLflow"

    def __init__(self, tracker: MlflowTracker, runs: Path) -> None:
        self._tracker = tracker
        self._uri = tracker.uri or os.environ.get("MLFLOW_TRACKING_URI") or _in(runs / "mlflow")
        self._project = tracker.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "seva_exp"
        self._client: Any = None
        self._id = ""
        self._sent: dict[str, float] = {}
        self._settings = ExitStack()

    def target(self) -> Json:
        return {"uri": _without_login(self._uri), "project": self._project}

    def refused(self) -> str | None:
        url = _host(self._uri)
        if url is None or answers(url):
            return None
        where = url.netloc.rpartition("@")[2]
        return f"{where} does not answer; once it does, the same command logs the run"

    def open(self, run: TrackedRun) -> str:
        self._settings.enter_context(_variables({**_QUIET, **_QUICK}))
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise ImportError("tracker=mlflow needs pip install 'seva_exp[mlflow]'") from None
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        with _alone(_file_of(self._uri)):  # two processes would both make the tables
            self._client = MlflowClient(tracking_uri=self._uri)
            experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'", max_results=1)
        self.fresh = not found
        tags = _tags(run)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
        made = found[0] if found else self._client.create_run(experiment, None, tags, run.name)
        self._id, self._sent = made.info.run_id, dict(made.data.metrics)
        self._set_tags(tags)
        self._log_params(run.config, set(made.data.params))
        if self._uri.startswith(("http://", "https://")):
            where = _without_login(self._uri).rstrip("/")
            self.url = f"{where}/#/experiments/{experiment}/runs/{self._id}"
        return f"run {self._id}: {self.url}" if self.url else f"run {self._id}, in {self.place}."

    @property
    def place(self) -> str:
        """The database's file; empty where a server keeps the run."""
        return str(_file_of(self._uri) or "")

    def hint(self, places: Sequence[str]) -> str:
        if self.url:
            return ""
        words = ["mlflow", "ui", "--backend-store-uri", _without_login(self._uri)]
        return f"To look: {shlex.join(words)}"

    def axis(self, stage: str) -> None:
        """MLflow draws over the step that was logged with."""

    def log(self, values: Mapping[str, float], row: int, step: int) -> int:
        self._log_metrics(list(values.items())[1:], step)  # the first is the step itself
        return row

    def summarise(self, values: Json) -> None:
        numbers = {_name(name): float(one) for name, one in values.items() if _counts(one)}
        new = {name: one for name, one in numbers.items() if self._sent.get(name) != one}
        self._log_metrics(new.items(), 0)
        self._sent |= new
        self._set_tags({name: one for name, one in values.items() if not _counts(one)})

    def describe(self, environment: Json) -> None:
        self._client.log_dict(self._id, environment, "environment.json")
        if environment.get("commit"):
            self._set_tags({"mlflow.source.git.commit": environment["commit"]})

    def show(self, table: Table | None, galleries: Gallery, row: int) -> int:
        """The table as CSV, which MLflow draws; of each list of pictures a folder, with the
        captions in a table."""
        if table:
            self._log_table(f"{table.name}.csv", table.columns, table.rows)
        for name, some in galleries.items():
            files = [f"{_name(name)}/{i}.png" for i, _ in enumerate(some)]
            for file, one in zip(files, some, strict=True):
                self._client.log_image(self._id, one.image, artifact_file=file)
            captions = [(file, one.caption) for file, one in zip(files, some, strict=True)]
            self._log_table(f"{_name(name)}/captions.csv", ("picture", "caption"), captions)
        return row

    def keep(self, made: Sequence[StageFile]) -> None:
        """What there is, and where; copied only when it was asked for."""
        rows = [
            {"name": one.name, "type": one.type, "key": one.key, "used": one.used,
             "path": str(one.path), "metadata": one.metadata}
            for one in made
        ]  # fmt: skip
        self._client.log_dict(self._id, {"files": rows}, "files.json")
        for one in made if self._tracker.artifacts else ():
            if one.path.is_dir():
                self._client.log_artifacts(self._id, str(one.path), one.name)
            else:
                self._client.log_artifact(self._id, str(one.path), one.name)

    def close(self, failed: bool) -> None:
        with self._settings:
            self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def _experiment(self) -> str:
        """The id of the project's experiment, which is made where there is none. In a database's
        file artifacts lie beside it; elsewhere the server says where."""
        found = self._client.get_experiment_by_name(self._project)
        if found is None:
            file = _file_of(self._uri)
            place = (file.parent / "artifacts").as_uri() if file else None
            try:
                return str(self._client.create_experiment(self._project, place))
            except Exception:  # another process was quicker
                found = self._client.get_experiment_by_name(self._project)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _log_metrics(self, values: Iterable[tuple[str, float]], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_name(name), float(value), now, step) for name, value in values]
        for some in _batches(metrics):
            self._client.log_batch(self._id, metrics=some)

    def _log_params(self, config: Json, there: set[str]) -> None:
        """Those that are not there yet: MLflow refuses another value (of ``machine.*``, say)."""
        from mlflow.entities import Param

        values = ((_name(name), value) for name, value in flatten(config, between="."))
        params = [
            Param(name, _text(one)[:PARAM_LENGTH]) for name, one in values if name not in there
        ]
        for some in _batches(params):
            self._client.log_batch(self._id, params=some)

    def _set_tags(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(_name(name), _text(one)[:TAG_LENGTH]) for name, one in values.items()]
        for some in _batches(tags):
            self._client.log_batch(self._id, tags=some)

    def _log_table(self, file: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self._client.log_text(self._id, csv_lines([columns, *rows]), file)


def _tags(run: TrackedRun) -> Json:
    """``tags`` has all of a run's tags, so that ``tags.`seva_exp.tags` LIKE '%moco%'`` finds it."""
    return {
        KEY: run.key,
        "seva_exp.group": run.group or "",
        "seva_exp.job_type": run.job_type,
        "seva_exp.tags": ", ".join(run.tags),
        "mlflow.source.name": "seva_exp",
        "mlflow.source.type": "LOCAL",
    }


def _counts(value: Any) -> bool:
    return isinstance(value, bool) or is_number(value)


def _text(value: Any) -> str:
    return "None" if value is None else cell(value)


def _name(name: str) -> str:
    """A name that MLflow takes: ``pope@vlmevalkit`` is ``pope_vlmevalkit``."""
    return _NOT_IN_NAMES.sub("_", name)[:NAME_LENGTH]


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[i : i + AT_ONCE] for i in range(0, len(values), AT_ONCE))


def _in(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def _file_of(uri: str) -> Path | None:
    """The file of an SQLite database."""
    url = urlsplit(uri)
    return Path(url.path.removeprefix("/")).absolute() if url.scheme == "sqlite" else None


def _host(uri: str) -> SplitResult | None:
    """Where a server listens; None for a file, and for what cannot be told (Databricks)."""
    try:
        url = urlsplit(uri)
        return url if url.hostname and url.scheme != "databricks" and url.port != 0 else None
    except ValueError:
        return None


def _without_login(uri: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@", "", hide(uri))


@contextmanager
def _alone(database: Path | None) -> Iterator[None]:
    """The only process that opens this database's file."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock")):
        yield


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment, for now, where a person has not set them."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
