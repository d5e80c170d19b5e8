"""A run in TensorBoard's event files, looked at with ``tensorboard --logdir``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seva_exp.core.spec import Json, flatten
from seva_exp.report.significance import is_number
from seva_exp.tracking.content import CaptionedPicture, Gallery, StageFile, Table
from seva_exp.tracking.folders import FolderSink
from seva_exp.tracking.sink import TrackedRun
from seva_exp.tracking.spec import TensorboardTracker

STEPS, CONFIG, END = "steps", "config", "end"
"""Ends of the event files' names. Files of steps are added to by each start of the run; of the
other two there is one each, written anew, as an event cannot be changed."""


class TensorboardSink(FolderSink):
    """One run as a folder of event files. A training step stands at its own number, a value of the
    whole run at step 0, a list of pictures at the steps 0, 1, ... of one card."""

    label = "TensorBoard"

    def __init__(self, tracker: TensorboardTracker, runs: Path) -> None:
        super().__init__(tracker.folder(runs))
        self._writer: Any = None
        self._summary: Json = {}
        self._environment: Json = {}
        self._files: Json = {}
        self._table: Table | None = None
        self._galleries: Gallery = {}

    def open(self, run: TrackedRun) -> str:
        try:
            import tensorboard  # noqa: F401 (torch tells its absence in another way)
        except ImportError:
            needs = "tracker=tensorboard needs pip install 'seva_exp[tensorboard]'"
            raise ImportError(needs) from None
        from torch.utils.tensorboard import SummaryWriter

        self.take_folder(run)
        self.fresh = not list(self.folder.glob(f"*.{STEPS}"))
        self._remove(END)
        about = {"group": run.group, "job_type": run.job_type, "tags": list(run.tags)}
        values = dict(flatten({**run.config, **about}, between="."))
        with self._anew(CONFIG) as writer:
            writer.file_writer.add_summary(session_start(values))
            writer.add_text("config", markdown(("name", "value"), values.items()), 0)
        self._writer = SummaryWriter(str(self.folder), filename_suffix=f".{STEPS}")
        return f"{self.folder}."

    def hint(self, places: Sequence[str]) -> str:
        return f"To look: {shlex.join(['tensorboard', '--logdir', str(self.root)])}"

    def axis(self, stage: str) -> None:
        """TensorBoard draws over the step that was logged with."""

    def log(self, values: Mapping[str, float], row: int, step: int) -> int:
        for name, value in list(values.items())[1:]:  # the first is the step itself
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # what is noted as sent is in the file
        return row

    def summarise(self, values: Json) -> None:
        self._summary |= values

    def describe(self, environment: Json) -> None:
        self._environment = environment

    def show(self, table: Table | None, galleries: Gallery, row: int) -> int:
        self._table, self._galleries = table, galleries
        return row

    def keep(self, made: Sequence[StageFile]) -> None:
        """Where the files are: they are on this machine already."""
        self._files = {one.name: str(one.path) for one in made}

    def close(self, failed: bool) -> None:
        self._writer.close()
        others = {**self._files, **dict(flatten({"environment": self._environment}, between="."))}
        with self._anew(END) as writer:
            for name, value in self._summary.items():
                if is_number(value):
                    writer.add_scalar(name, value, 0)
                else:
                    others[name] = value
            writer.add_text("summary", markdown(("name", "value"), others.items()), 0)
            if self._table:
                rows = markdown(self._table.columns, self._table.rows)
                writer.add_text(self._table.name, rows, 0)
            for name, some in self._galleries.items():
                _add_pictures(writer, name, some)
            writer.file_writer.add_summary(session_end(failed))

    @contextmanager
    def _anew(self, end: str) -> Iterator[Any]:
        """A writer of the only file whose name ends so."""
        from torch.utils.tensorboard import SummaryWriter

        self._remove(end)
        with SummaryWriter(str(self.folder), filename_suffix=f".{end}") as writer:
            yield writer

    def _remove(self, end: str) -> None:
        for file in self.folder.glob(f"*.{end}"):
            file.unlink()


def session_start(values: Json) -> Any:
    """The event that makes a run a row of the HPARAMS tab: its hyperparameters. (TensorBoard's own
    function for it needs TensorFlow, torch's makes numbers of truths.)"""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in values.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif is_number(value):
            info.hparams[name].number_value = value
        elif value:  # a text, a list
            info.hparams[name].string_value = str(value)
    data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    return _session(metadata.SESSION_START_INFO_TAG, data)


def session_end(failed: bool) -> Any:
    """The event that says how a run of the HPARAMS tab ended."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    info = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS,
        end_time_secs=time.time(),
    )
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return _session(metadata.SESSION_END_INFO_TAG, data)


def _session(tag: str, data: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    about = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _add_pictures(writer: Any, name: str, some: Sequence[CaptionedPicture]) -> None:
    """A picture at each step, and its caption as a text of the same name and step."""
    import numpy

    for step, one in enumerate(some):
        pixels = numpy.asarray(one.image.convert("RGB"))
        writer.add_image(name, pixels, step, dataformats="HWC")
        writer.add_text(name, one.caption.replace("\n", "  \n"), step)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown, which TensorBoard draws."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return " ".join(text.replace("|", "\\|").split())
