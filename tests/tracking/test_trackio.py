"""trackio, for real and offline: the same names and numbers as W&B, in SQLite files of its own.

Needs the extra ``trackio``, which takes an older pillow than constraints.txt: in an environment of
its own (CONTRIBUTING.md).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from seva_exp.tracking import TrackioTracker

from .played import KEY, a_plan, play

TRACKER = TrackioTracker(project="proj", tags=("a",), group="g")
NAME = f"demo-{KEY[:8]}"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trackio's own reader, over a folder of this test."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads the variable once
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage


def test_the_same_numbers_pictures_and_files(
    tmp_path: Path, storage: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    play(a_plan(tmp_path / "run"), tmp_path / "store", TRACKER, live=5)
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith(f"trackio: run {NAME}, in {tmp_path}/trackio/")
    assert said.err.count("\n") == 1 and "To look: trackio show --project proj" in said.err
    rows = storage.get_logs("proj", NAME)
    steps = [row["align/step"] for row in rows if "align/step" in row]
    assert steps == [row["step"] for row in rows if "align/step" in row] == [1, 2, 3, 4, 5]
    values = {name: value for row in rows for name, value in row.items()}
    assert values["benchmark/shapes/all/CHAIRi/aligned"] == 25
    assert values["benchmark/shapes/all/CHAIRi/delta/p"] == 0.01
    assert values["stage/align/rate"] == 2.5 and values["pairs/dropped/equal"] == 3
    assert values["scores"]["_value"][0]["metric"] == "CHAIRi"
    (shown,) = values["examples/moco"]["_value"]
    assert "chosen: a dog\nrejected (moco): a cat" in shown["what it shows"]
    assert (tmp_path / "trackio" / "media" / shown["picture"]["file_path"]).stat().st_size
    config = storage.get_run_config("proj", NAME)
    assert config["generation.servers.0.port"] == 1 and config["views"] == "moco"
    assert config["tags"] == ["a", "seva", "moco", "llava-1.5-7b-hf"]
    assert config["job_type"] == "align" and config["_Group"] == "g"
    found = storage.get_artifact_manifest("proj", "adapter", "a" * 12)
    assert [entry["path"] for entry in found["manifest"]] == ["adapter/adapter_config.json"]
    files = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]
    assert not [p for p in files if b"SECRET" in p.read_bytes()]


def test_a_resumed_run_goes_on_and_a_complete_one_is_left(
    tmp_path: Path, storage: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    play(a_plan(tmp_path / "first"), store, TRACKER, live=3, fail=True)
    play(a_plan(tmp_path / "second", cached=("answers.clean",)), store, TRACKER, live=5)
    rows = storage.get_logs("proj", NAME)
    assert [row["align/step"] for row in rows if "align/step" in row] == [1, 2, 3, 4, 5]
    capfd.readouterr()
    stages = tuple(stage.name for stage in a_plan(tmp_path).stages)
    play(a_plan(tmp_path / "third", cached=stages), store, TRACKER)
    assert "is already complete" in capfd.readouterr().err
    assert len(storage.get_logs("proj", NAME)) == len(rows)


def test_what_an_earlier_run_made_is_an_input(tmp_path: Path, storage: Any) -> None:
    store = tmp_path / "store"
    play(a_plan(tmp_path / "one"), store, TRACKER, live=5)
    play(a_plan(tmp_path / "two", cached=("pairs",), key="7" * 64), store, TRACKER, live=5)
    run = f"demo-{'7' * 8}"
    run_id = storage.get_latest_run_record_by_name("proj", run)["id"]
    links = storage.get_run_artifacts("proj", run, run_id)
    assert {way: [one["name"] for one in some] for way, some in links.items()} == {
        "input": ["pairs"],
        "output": ["adapter"],
    }
