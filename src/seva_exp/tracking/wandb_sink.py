"""A run in Weights & Biases: online when it can be, else in files that ``wandb sync`` uploads."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seva_exp.core.spec import Json
from seva_exp.tracking.content import Gallery, StageFile, Table
from seva_exp.tracking.listener import in_short
from seva_exp.tracking.sink import Sink, TrackedRun
from seva_exp.tracking.spec import GROUP_LENGTH, WandbTracker
from seva_exp.tracking.wandb_mode import Mode, choose_mode, wandb_host
from seva_exp.tracking.wandb_variables import project_of, refused, tags_of

START_SECONDS = 15.0
"""How long the W&B host may take to open a run before the run is tracked offline."""
FINISH_SECONDS = 600.0
"""How long uploads may take once the run has ended; the rest is left to ``wandb sync``."""


class WandbSink(Sink):
    """One W&B run. Its id is the run's key; an agent of ``wandb sweep`` has chosen id, project and
    entity already."""

    label = "W&B"

    def __init__(self, tracker: WandbTracker) -> None:
        self._tracker = tracker
        self._mode: Mode = "offline"
        self._run: Any = None
        self._refused: dict[str, str] = {}

    def run_id(self, key: str) -> str:
        return (_of_an_agent() and os.environ.get("WANDB_RUN_ID")) or super().run_id(key)

    def target(self) -> Json:
        return {"project": project_of(self._tracker), "entity": self._tracker.entity}

    def refused(self) -> str | None:
        self._mode, self._why = choose_mode(self._tracker)
        return self._why if self._mode == "disabled" else None

    def open(self, run: TrackedRun) -> str:
        run_id = self.run_id(run.key)
        self._refused = refused(os.environ)
        if self._mode == "online":
            try:
                self._run = self._start(run, run_id)
            except Exception as error:  # a refused key, a server that hangs or fails
                self._mode, self._why = "offline", f"online failed: {in_short(error)}"
                _discard(run.dir, run_id)
        if self._run is None:
            self._run = self._start(run, run_id)
        why = [self._why, *(f"{name} is not used: {why}" for name, why in self._refused.items())]
        how = f"{self._mode}, run {run_id} ({'; '.join(why)})"
        return f"{how}: {self._run.url}" if self._mode == "online" else f"{how}."

    @property
    def place(self) -> str:
        return str(Path(self._run.dir).parent)

    def hint(self, places: Sequence[str]) -> str:
        if self._mode == "online":
            return ""
        return f"To upload: {shlex.join(['wandb', 'sync', *places])}"

    def axis(self, stage: str) -> None:
        self._run.define_metric(f"{stage}/step", hidden=True)
        self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def log(self, values: Mapping[str, Any], row: int, step: int) -> int:
        # The row is explicit, as an offline run can't know what came before.
        row = max(row, self._run.step)
        self._run.log(values, step=row)
        return row

    def summarise(self, values: Json) -> None:
        self._run.summary.update(values)

    def describe(self, environment: Json) -> None:
        self._run.config.update({"environment": environment}, allow_val_change=True)

    def show(self, table: Table | None, galleries: Gallery, row: int) -> int:
        import wandb

        media: dict[str, Any] = {
            name: [wandb.Image(one.image, caption=one.caption) for one in some]
            for name, some in galleries.items()
        }
        if table:
            rows = [list(line) for line in table.rows]
            media[table.name] = wandb.Table(columns=list(table.columns), data=rows)
        with self._staged():
            return self.log(media, row, row)

    def keep(self, made: Sequence[StageFile]) -> None:
        """What an earlier run made is this run's input, what this one made its output: W&B draws
        the lineage. Offline W&B records outputs only; there every file is one."""
        import wandb

        for one in made if self._tracker.artifacts else ():
            artifact = wandb.Artifact(one.name, one.type, metadata=one.metadata)
            files = [one.path] if one.path.is_file() else sorted(one.path.rglob("*"))
            for file in files:  # ``add_dir`` would speak
                name = file.relative_to(one.path if one.path.is_dir() else one.path.parent)
                if file.is_file():
                    # nothing in the store changes: no copy
                    artifact.add_file(str(file), name=name.as_posix(), policy="immutable")
            with self._staged():
                if one.used and self._mode == "online":
                    self._run.use_artifact(artifact, aliases=[one.key[:12]])
                else:
                    self._run.log_artifact(artifact, aliases=["latest", one.key[:12]])

    def close(self, failed: bool) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=int(failed))

    def _start(self, run: TrackedRun, run_id: str) -> Any:
        """``wandb.init``, quiet and, but for ``tracker.system``, without what W&B would gather on
        its own."""
        import wandb

        tracker = self._tracker
        agent, tags = _of_an_agent(), tags_of(run.tags)
        with _settled_environment(self._refused), contextlib.redirect_stderr(io.StringIO()):
            # stderr: the login line ignores ``silent``
            settings = wandb.Settings(
                silent=True,
                quiet=True,
                console="off",
                disable_git=not tracker.system,
                disable_code=True,
                disable_job_creation=True,
                save_code=False,
                use_dot_wandb=False,
                init_timeout=START_SECONDS,
                finish_timeout=FINISH_SECONDS,
                x_disable_stats=not tracker.system,
                x_disable_machine_info=not tracker.system,
                x_save_requirements=tracker.system,
            )
            return wandb.init(
                project=None if agent else project_of(tracker),
                entity=None if agent else tracker.entity,
                id=None if agent else run_id,
                group=run.group or self._said("WANDB_RUN_GROUP") or agent,
                job_type=run.job_type,
                tags=tags or None,
                name="_".join([self._named(run), *_suggested()])[:GROUP_LENGTH],
                resume="allow",
                mode=self._mode,
                dir=run.dir,
                config=run.config,
                reinit="create_new",
                settings=settings,
            )

    def _said(self, variable: str) -> str:
        return "" if variable in self._refused else os.environ.get(variable, "")

    def _named(self, run: TrackedRun) -> str:
        """What a person named it, else $WANDB_NAME, else what it is made of."""
        return run.name if run.config.get("name") else self._said("WANDB_NAME") or run.name

    @contextlib.contextmanager
    def _staged(self) -> Iterator[None]:
        """Have W&B stage files in the run's folder, so that an offline run is whole there."""
        ours = "WANDB_DATA_DIR" not in os.environ
        if ours:
            os.environ["WANDB_DATA_DIR"] = str(Path(self.place).parent)
        try:
            yield
        finally:
            if ours:
                del os.environ["WANDB_DATA_DIR"]


def _of_an_agent() -> str | None:
    """The sweep of the ``wandb agent`` that started this process; None without one."""
    return os.environ.get("WANDB_SWEEP_ID") or None


def _suggested() -> list[str]:
    """What W&B's agent chose for this run of its sweep, as ``step=300``: it differs."""
    import yaml

    path = os.environ.get("WANDB_SWEEP_PARAM_PATH") if _of_an_agent() else None
    if not path or not Path(path).is_file():
        return []
    rows = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    chosen = {name: row["value"] for name, row in rows.items() if isinstance(row, dict)}
    return [f"{name.rsplit('.', 1)[-1]}={value}" for name, value in chosen.items()]


@contextlib.contextmanager
def _settled_environment(refused: Collection[str]) -> Iterator[None]:
    """The variables without those that wandb refuses, or that would have it report on itself."""
    settled = ["WANDB_MODE", "WANDB_TAGS"]  # given to ``wandb.init``
    changes: dict[str, str | None] = dict.fromkeys([*settled, *refused])
    if wandb_host() is None:
        changes["WANDB_BASE_URL"] = None
    if "WANDB_ERROR_REPORTING" not in os.environ:
        changes["WANDB_ERROR_REPORTING"] = "false"
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _discard(folder: Path, run_id: str) -> None:
    """Forget an online run that did not begin: its empty files, and its id, which wandb's service
    would keep as taken. The service starts anew, so nothing else may be logging through it."""
    import wandb

    if wandb.run is None:
        with contextlib.redirect_stderr(io.StringIO()):
            wandb.teardown()
    for unused in (folder / "wandb").glob(f"run-*-{run_id}"):
        shutil.rmtree(unused, ignore_errors=True)
