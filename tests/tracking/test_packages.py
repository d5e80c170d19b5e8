"""Trackers whose package is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from seva_exp.tracking import MlflowTracker, TensorboardTracker, TrackioTracker
from seva_exp.tracking.spec import AnyTracker

from .played import a_plan, play


@pytest.mark.parametrize(
    ("tracker", "label"),
    [
        (MlflowTracker(), "MLflow"),
        (TensorboardTracker(), "TensorBoard"),
        (TrackioTracker(), "trackio"),
    ],
)
def test_a_missing_package_is_one_warning(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tracker: AnyTracker,
    label: str,
) -> None:
    monkeypatch.setitem(sys.modules, tracker.kind, None)
    play(a_plan(tmp_path / "run"), tmp_path / "store", tracker, live=5)
    said = capfd.readouterr().err
    assert f"{label}: warning: tracking could not start" in said and said.count("\n") == 1
    assert f"pip install 'seva_exp[{tracker.kind}]'" in said
