"""Experiment trackers: none, Weights & Biases, or trackio on this machine.

What is logged is described once (``content.py``, sent by ``listener.py``); a tracker is a thin sink
behind it. seva_exp itself imports wandb or trackio only when a run really begins to log; TRL, which
the align stage loads, imports wandb on its own.
"""

from __future__ import annotations

from pathlib import Path

from seva_exp.runs.events import Listener
from seva_exp.tracking.listener import TrackingListener
from seva_exp.tracking.spec import (
    TRACKERS,
    AnyTracker,
    NoTracker,
    TrackioTracker,
    WandbTracker,
    in_sweep,
)
from seva_exp.tracking.trackio_sink import TrackioSink
from seva_exp.tracking.wandb_sink import WandbSink


def make_listeners(tracker: AnyTracker, store_root: Path) -> list[Listener]:
    """The listeners of one run. ``store_root`` keeps what was already logged, per tracked run."""
    if isinstance(tracker, WandbTracker):
        return [TrackingListener(WandbSink(tracker), tracker, store_root)]
    if isinstance(tracker, TrackioTracker):
        return [TrackingListener(TrackioSink(tracker), tracker, store_root)]
    return []
