"""CSV files: the same names and numbers as W&B, for readers that know nothing of us."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from pydantic import ValidationError

from seva_exp.tracking import CsvTracker, make_listeners
from seva_exp.tracking.csv_sink import History

from ..hostile import ALL
from .played import KEY, MADE, ROWS, STAGES, a_plan, play

TRACKER = CsvTracker(tags=("a",), group="g")


def the_folder(root: Path) -> Path:
    return root / "csv" / f"demo-{KEY[:8]}"


def values_of(file: Path) -> dict[str, str]:
    """A table of names and values."""
    csv.field_size_limit(2_000_000)
    with file.open(encoding="utf-8", newline="") as rows:
        return {row["name"]: row["value"] for row in csv.DictReader(rows)}


def test_the_same_names_and_numbers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    play(a_plan(tmp_path / "run"), tmp_path / "store", TRACKER, live=5)
    said = capfd.readouterr()
    folder = the_folder(tmp_path)
    assert (said.out, said.err) == ("", f"CSV: {folder}.\n")
    history = pandas.read_csv(folder / "history.csv")
    assert list(history) == ["stage", "step", "loss"] and set(history.stage) == {"align"}
    assert history.step.tolist() == [row["step"] for row in ROWS]
    assert history.loss.tolist() == [row["loss"] for row in ROWS], "to the last digit"
    values = values_of(folder / "summary.csv")
    assert values["state"] == "finished" and values["key"] == KEY and values["group"] == "g"
    assert values["benchmark/shapes/all/CHAIRi/aligned"] == "25.0"
    assert values["benchmark/shapes/all/CHAIRi/delta/p"] == "0.01"
    assert values["stage/align/rate"] == "2.5" and values["pairs/dropped/equal"] == "3"
    assert values["stage/align/cached"] == "False" and values["job_type"] == "align"
    assert values["tags"] == '["a", "seva", "moco", "llava-1.5-7b-hf"]'
    config = values_of(folder / "config.csv")
    assert config["generation.servers.0.port"] == "1" and config["views"] == "moco"
    assert config["run_key"] == KEY and config["environment.device"] == "cpu"
    scores = pandas.read_csv(folder / "scores.csv")
    assert scores.value.tolist() == [26, 25] and scores.metric.tolist() == ["CHAIRi"] * 2
    files = pandas.read_csv(folder / "files.csv")
    assert files.name.tolist() == ["pairs", "adapter"] and files.key[1] == "a" * 64
    assert Path(files.path[0]) == tmp_path / "run" / MADE[0]
    there = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]
    assert not [p for p in there if b"SECRET" in p.read_bytes()]


def test_a_resumed_run_goes_on_and_a_complete_one_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, folder = tmp_path / "store", the_folder(tmp_path)
    play(a_plan(tmp_path / "one"), store, TRACKER, live=3, fail=True)
    assert values_of(folder / "summary.csv")["state"] == "failed"
    assert pandas.read_csv(folder / "history.csv").step.tolist() == [1, 2, 3]
    play(a_plan(tmp_path / "two", cached=("answers.clean",)), store, TRACKER, live=5)
    assert pandas.read_csv(folder / "history.csv").step.tolist() == [1, 2, 3, 4, 5]
    assert values_of(folder / "summary.csv")["state"] == "finished"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    capfd.readouterr()
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    play(a_plan(tmp_path / "three", cached=STAGES), store, TRACKER)
    assert f"is already complete: {folder}" in capfd.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_what_was_lost_is_sent_again(tmp_path: Path) -> None:
    """A history that is gone, though it is noted as sent."""
    store, folder = tmp_path / "store", the_folder(tmp_path)
    play(a_plan(tmp_path / "one"), store, TRACKER, live=3, fail=True)
    (folder / "history.csv").unlink()
    play(a_plan(tmp_path / "two"), store, TRACKER, live=5)
    assert pandas.read_csv(folder / "history.csv").step.tolist() == [1, 2, 3, 4, 5]


def test_two_at_once_do_not_double_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    first, second = (make_listeners(TRACKER, store, tmp_path)[0] for _ in range(2))
    plan = a_plan(tmp_path / "run")
    for one in (first, second):
        one.planned(plan)
    assert "CSV: not tracked (another process tracks run" in capfd.readouterr().err
    for one in (first, second):
        one.logged("align", 1, ROWS[0])
    assert len(pandas.read_csv(the_folder(tmp_path) / "history.csv")) == 1
    first.failed(RuntimeError("stop"))
    play(plan, store, TRACKER, live=2)
    assert pandas.read_csv(the_folder(tmp_path) / "history.csv").step.tolist() == [1, 2, 3, 4, 5]


def test_a_later_column_half_a_row_and_a_repeated_step(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    table = History(file)
    table.add({"stage": "align", "step": 1, "loss": 0.1})
    table.add({"stage": "align", "step": 2, "loss": 0.2})
    table.add({"stage": "finetune", "step": 2, "eval/loss": 1e-7})
    with file.open("a") as more:
        more.write("align,3,0.")
    table = History(file)
    table.add({"stage": "align", "step": 3, "loss": 0.3})
    table.add({"stage": "align", "step": 1, "loss": 0.9})
    read = pandas.read_csv(file)
    assert list(read) == ["stage", "step", "loss", "eval/loss"]
    assert read.step.tolist() == [1, 2, 2, 3] and read.loss.tolist()[::3] == [0.9, 0.3]
    assert read["eval/loss"][2] == 1e-7 and read["eval/loss"].isna().sum() == 3


def test_another_table_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("mine,2\n")
    with pytest.raises(ValueError, match="move it away"):
        History(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text() == "mine,2\n"


def test_any_text_stands_in_a_cell(tmp_path: Path) -> None:
    (listener,) = make_listeners(TRACKER, tmp_path / "store", tmp_path)
    plan = a_plan(tmp_path / "run")
    plan.config["texts"] = {str(i): text for i, text in enumerate(ALL)}
    try:
        listener.planned(plan)
        config = values_of(the_folder(tmp_path) / "config.csv")
        for i, text in enumerate(ALL):
            told = text.encode("utf-8", "backslashreplace").decode().replace("\r", "\n")
            assert config[f"texts.{i}"] == told
    finally:
        del plan.config["texts"]
        listener.failed(RuntimeError("end"))


def test_a_killed_process_leaves_every_step(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from played import ROWS, a_plan, make_listeners\n"
        "from seva_exp.tracking import CsvTracker\n"
        "(one,) = make_listeners(CsvTracker(), Path('store'), Path('.'))\n"
        "one.planned(a_plan(Path('run')))\n"
        "for row in ROWS[:3]: one.logged('align', row['step'], row)\n"
        "print([n for n in ('torch', 'pandas', 'wandb') if n in sys.modules], flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    source = Path(__file__).parents[2] / "src"
    path = os.pathsep.join([str(Path(__file__).parent), str(source)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == -9 and done.stdout.strip() == "[]", done.stderr
    folder = the_folder(tmp_path)
    assert pandas.read_csv(folder / "history.csv").step.tolist() == [1, 2, 3]
    assert values_of(folder / "summary.csv")["state"] == "running"
    play(a_plan(tmp_path / "two"), tmp_path / "store", CsvTracker(), live=5)
    assert pandas.read_csv(folder / "history.csv").step.tolist() == [1, 2, 3, 4, 5]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValidationError, match="is a file; give a folder"):
        CsvTracker(dir=str(tmp_path / "file"))
