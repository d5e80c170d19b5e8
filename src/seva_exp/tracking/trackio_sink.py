"""A run in trackio: SQLite files on this machine, looked at with ``trackio show``."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from seva_exp.core.spec import Json, flatten
from seva_exp.report.significance import is_number
from seva_exp.tracking.content import Gallery, StageFile, Table
from seva_exp.tracking.sink import Sink, TrackedRun
from seva_exp.tracking.spec import TrackioTracker


class TrackioSink(Sink):
    """One trackio run. Trackio finds a run by its name, so that holds a piece of the key. It has
    one axis and no summary: a training step is logged at its own number, a value of the whole run
    at step 0."""

    label = "trackio"

    def __init__(self, tracker: TrackioTracker) -> None:
        self._tracker = tracker
        self._run: Any = None

    def target(self) -> Json:
        return {"project": self._tracker.project}

    def open(self, run: TrackedRun) -> str:
        try:
            import trackio
        except ImportError:
            raise ImportError("tracker=trackio needs pip install 'seva_exp[trackio]'") from None
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project=self._tracker.project,
                name=f"{run.name}-{run.key[:8]}",
                group=run.group,
                config={
                    **dict(flatten(run.config, between=".")),
                    "job_type": run.job_type,
                    "tags": list(run.tags),
                },
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return f"run {self._run.name}, in {self.place}."

    @property
    def place(self) -> str:
        from trackio.sqlite_storage import SQLiteStorage

        return str(SQLiteStorage.get_project_db_path(self._tracker.project))

    def hint(self, places: Sequence[str]) -> str:
        return f"To look: trackio show --project {self._tracker.project}"

    def axis(self, stage: str) -> None:
        """Trackio draws over the step that was logged with."""

    def log(self, values: Mapping[str, float], row: int, step: int) -> int:
        self._run.log(dict(values), step=step)
        return row

    def summarise(self, values: Json) -> None:
        numbers = {name: value for name, value in values.items() if is_number(value)}
        self._run.log(numbers, step=0)

    def describe(self, environment: Json) -> None:
        """Trackio takes a run's config once, when it begins."""

    def show(self, table: Table | None, galleries: Gallery, row: int) -> int:
        import trackio

        shown = {
            name: trackio.Table(
                columns=["picture", "what it shows"],
                data=[[trackio.Image(one.image), one.caption] for one in some],
            )
            for name, some in galleries.items()
        }
        if table:
            rows = [list(line) for line in table.rows]
            shown[table.name] = trackio.Table(columns=list(table.columns), data=rows)
        self._run.log(shown, step=0)
        return row

    def keep(self, made: Sequence[StageFile]) -> None:
        """Log files as references: they are on this machine already. What an earlier tracked run
        made is this run's input."""
        import trackio

        for one in made:
            if one.used:
                with contextlib.suppress(ValueError):  # trackio does not have it
                    self._run.use_artifact(f"{one.name}:{one.key[:12]}")
                    continue
            artifact = trackio.Artifact(one.name, one.type, metadata=one.metadata)
            artifact.add_reference(one.path.as_uri(), name=one.path.name)
            self._run.log_artifact(artifact, aliases=[one.key[:12]])

    def close(self, failed: bool) -> None:
        import trackio

        self._run = None
        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()  # not the run's own: that would be done again when Python ends
