"""Which tracker, and what it is told beside the run itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from seva_exp.core.spec import BY_KIND, Spec, by_kind

PROJECT_LENGTH, GROUP_LENGTH, TAG_LENGTH = 128, 128, 64
"""Most characters of a project's, a group's (or run's) name, and of a tag: W&B takes no more."""
PROJECT = re.compile(r"^[^/\\#?%:]+$")
"""What W&B takes for a project's name (wandb 0.31, ``Settings.project``)."""
ENTITY = re.compile(r"^[\w.-]+$")
"""What a W&B user's or team's name is made of; wandb itself does not look."""
STORES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
"""Where MLflow 3 keeps runs: a server, or a database (``postgresql+psycopg2`` is one, too)."""
Tag = Annotated[str, Field(min_length=1, max_length=TAG_LENGTH)]


class NoTracker(Spec):
    """No tracker: nothing is sent, and the run's folder holds every number already."""

    kind: Literal["none"] = "none"


class Tracked(Spec):
    """The options of every tracker."""

    kind: str
    """Which tracker."""
    group: str | None = Field(None, min_length=1, max_length=GROUP_LENGTH)
    """Name under which runs are grouped; none: the sweep's name, where there is one (W&B:
    $WANDB_RUN_GROUP before that)."""
    tags: tuple[Tag, ...] = ()
    """Tags beside those of the run's own method, views and model; of 1 to 64 characters."""


class WandbTracker(Tracked):
    """Mirror a run to Weights & Biases, or to files that ``wandb sync`` uploads later."""

    kind: Literal["wandb"] = "wandb"
    project: str | None = Field(None, max_length=PROJECT_LENGTH, pattern=PROJECT.pattern)
    """Project that the runs are filed under, without any of ``/\\#?%:``; none: $WANDB_PROJECT, else
    seva_exp."""
    entity: str | None = Field(None, pattern=ENTITY.pattern)
    """W&B user or team; none takes the account's own (or $WANDB_ENTITY)."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """``auto``: what $WANDB_MODE says, else online when a key is found and the host answers."""
    artifacts: bool = True
    """Whether the pairs and the adapter are logged as artifacts: uploaded, once per content."""
    system: bool = False
    """Whether W&B gathers by itself, too: system metrics (GPU, CPU, memory), the machine, the git
    state, installed packages."""


class TrackioTracker(Tracked):
    """Mirror a run to trackio, a dashboard over SQLite files on this machine ($TRACKIO_DIR)."""

    kind: Literal["trackio"] = "trackio"
    project: str = Field("seva_exp", min_length=1)
    """Project that the runs are filed under."""


class InFolders(Tracked):
    """A tracker that writes files into a folder for each run."""

    dir: str | None = Field(None, min_length=1)
    """Folder in which each run has one of its own; none: one of the tracker's name (``csv``,
    ``tensorboard``) in ``machine.runs``."""

    @field_validator("dir")
    @classmethod
    def _no_file(cls, value: str | None) -> str | None:
        if value and (path := Path(value).expanduser()).exists() and not path.is_dir():
            raise ValueError("is a file; give a folder, which need not be there yet")
        return value

    def folder(self, runs: Path) -> Path:
        """Where the runs' folders are. ``runs``: the folder of ``machine.runs``."""
        return Path(self.dir).expanduser().absolute() if self.dir else runs / self.kind


class CsvTracker(InFolders):
    """Mirror a run to CSV files: training history, scores, summary and config, for pandas, DuckDB
    or a spreadsheet."""

    kind: Literal["csv"] = "csv"


class TensorboardTracker(InFolders):
    """Mirror a run to TensorBoard's event files: curves, scores, pictures, hyperparameters."""

    kind: Literal["tensorboard"] = "tensorboard"


class MlflowTracker(Tracked):
    """Mirror a run to MLflow: a server, or a database on this machine."""

    kind: Literal["mlflow"] = "mlflow"
    project: str | None = Field(None, min_length=1, max_length=500)
    """MLflow experiment that the runs are filed under; none: $MLFLOW_EXPERIMENT_NAME, else
    seva_exp."""
    uri: str | None = None
    """Where MLflow keeps runs: ``http(s)://HOST:PORT``, ``sqlite:///FILE.db``, another database;
    none: $MLFLOW_TRACKING_URI, else ``mlflow/mlflow.db`` in ``machine.runs``."""
    artifacts: bool = False
    """Whether the pairs and the adapter are copied (uploaded, to a server) with each run that made
    or used them; else a run's ``files.json`` says where they are."""

    @field_validator("uri")
    @classmethod
    def _a_store(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            url = urlsplit(value)
            scheme, login, host = url.scheme.partition("+")[0], url.password, url.hostname
            _ = url.port
        except ValueError as error:
            raise ValueError(f"is no address ({error})") from None
        needed = {"http": host, "https": host, "sqlite": url.path.strip("/")}
        if scheme not in STORES or not needed.get(scheme, True):
            raise ValueError(
                "is none that MLflow keeps runs in: http(s)://HOST:PORT, sqlite:///FILE.db, or "
                "another database"
            )
        if login:
            raise ValueError(
                "holds a password. Give the whole address in $MLFLOW_TRACKING_URI, or a server's "
                "login in $MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD"
            )
        return value


_Union = NoTracker | WandbTracker | TrackioTracker | CsvTracker | TensorboardTracker | MlflowTracker

AnyTracker = Annotated[_Union, BY_KIND]
"""The field type of a config that holds a tracker."""
TRACKERS: dict[str, type[Spec]] = by_kind(_Union)
"""kind -> class."""


def in_sweep(tracker: AnyTracker, sweep: str) -> AnyTracker:
    """The tracker of one run of a sweep: its group is the sweep, where none was given."""
    if isinstance(tracker, NoTracker) or tracker.group is not None:
        return tracker
    if isinstance(tracker, WandbTracker) and os.environ.get("WANDB_RUN_GROUP"):
        return tracker
    return tracker.model_copy(update={"group": sweep[:GROUP_LENGTH]})
