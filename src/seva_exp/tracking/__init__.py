"""Experiment trackers: none, Weights & Biases, trackio, TensorBoard, MLflow, or CSV files.

What is logged is described once (``content.py``, sent by ``listener.py``); a tracker is a thin sink
behind it. seva_exp itself imports a tracker's package only when a run really begins to log; TRL,
which the align stage loads, imports wandb on its own.
"""

from __future__ import annotations

from pathlib import Path

from seva_exp.runs.events import Listener
from seva_exp.tracking.csv_sink import CsvSink
from seva_exp.tracking.listener import TrackingListener
from seva_exp.tracking.mlflow_sink import MlflowSink
from seva_exp.tracking.sink import Sink
from seva_exp.tracking.spec import (
    TRACKERS,
    AnyTracker,
    CsvTracker,
    MlflowTracker,
    NoTracker,
    TensorboardTracker,
    TrackioTracker,
    WandbTracker,
    in_sweep,
)
from seva_exp.tracking.tensorboard_sink import TensorboardSink
from seva_exp.tracking.trackio_sink import TrackioSink
from seva_exp.tracking.wandb_sink import WandbSink


def make_listeners(tracker: AnyTracker, store_root: Path, runs_root: Path) -> list[Listener]:
    """The listeners of one run. ``store_root`` keeps what was already logged, per tracked run;
    trackers that write files have a folder in ``runs_root`` unless told another."""
    if isinstance(tracker, NoTracker):
        return []
    return [TrackingListener(_sink(tracker, runs_root), tracker, store_root)]


def _sink(tracker: AnyTracker, runs_root: Path) -> Sink:
    match tracker:
        case WandbTracker():
            return WandbSink(tracker)
        case TrackioTracker():
            return TrackioSink(tracker)
        case CsvTracker():
            return CsvSink(tracker, runs_root)
        case TensorboardTracker():
            return TensorboardSink(tracker, runs_root)
        case MlflowTracker():
            return MlflowSink(tracker, runs_root)
        case _:
            raise AssertionError(tracker)
