"""The store: an artifact exists if and only if it is complete; work is done once and goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from seva_exp import Machine
from seva_exp.core.errors import InputError
from seva_exp.core.store import MANIFEST, Journal, Manifest, Store, read_journal

KEY = "ab" * 32


def describe(seconds: float, summary: dict) -> Manifest:
    return Manifest("stage", 1, KEY, {"x": 1}, {}, {}, seconds, summary)


def make(store: Store, work, **options):
    return store.make(describe, "stage", KEY, work, **options)


def write(text: str):
    def work(folder: Path) -> dict:
        (folder / "result.txt").write_text(text)
        return {"length": len(text)}

    return work


def test_work_is_done_once_and_found_again(tmp_path):
    store = Store(tmp_path).create()
    assert store.find("stage", KEY) is None
    manifest, cached = make(store, write("first"))
    assert (manifest.summary, cached) == ({"length": 5}, False)
    manifest, cached = make(store, write("second"))
    assert (manifest.summary, cached) == ({"length": 5}, True)
    assert (store.path("stage", KEY) / "result.txt").read_text() == "first"


def test_what_only_the_work_needs_is_gone_with_its_end(tmp_path):
    store = Store(tmp_path).create()

    def work(folder: Path) -> dict:
        (folder / "parts" / "ranks").mkdir(parents=True)
        (folder / "parts" / "ranks" / "rank-0.log").write_text("said")
        return write("done")(folder)

    make(store, work)
    assert sorted(p.name for p in store.path("stage", KEY).iterdir()) == [
        "manifest.json",
        "result.txt",
    ]


def test_a_failed_attempt_is_no_artifact_and_its_files_are_found_again(tmp_path):
    store = Store(tmp_path).create()

    def fail(folder: Path) -> dict:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        make(store, fail)
    assert store.find("stage", KEY) is None
    assert not store.path("stage", KEY).exists()

    def go_on(folder: Path) -> dict:
        return {"found": (folder / "half.txt").read_text()}

    assert make(store, go_on)[0].summary == {"found": "half"}


def test_force_replaces_the_artifact_only_when_the_new_one_is_complete(tmp_path):
    store = Store(tmp_path).create()
    make(store, write("old"))

    def fail(folder: Path) -> dict:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        make(store, fail, force=True)
    assert (store.path("stage", KEY) / "result.txt").read_text() == "old"
    make(store, write("new"), force=True)
    assert (store.path("stage", KEY) / "result.txt").read_text() == "new"
    assert sorted(p.name for p in (tmp_path / "stage").iterdir()) == [KEY[:20]]


def test_a_manifest_of_another_key_is_not_taken(tmp_path):
    store = Store(tmp_path).create()
    make(store, write("x"))
    twin = KEY[:20] + "0" * 44
    assert store.path("stage", twin) == store.path("stage", KEY)
    assert store.find("stage", twin) is None


def _slow_work(root: str, log: str) -> None:
    def work(folder: Path) -> dict:
        with open(log, "a") as file:
            file.write("worked\n")
        time.sleep(0.5)
        return {}

    make(Store(Path(root)), work)


def test_processes_that_race_for_an_artifact_compute_it_once(tmp_path):
    Store(tmp_path).create()
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_slow_work, args=(str(tmp_path), str(log))) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(240)
        assert racer.exitcode == 0
    assert log.read_text() == "worked\n"


def _hang(root: str) -> None:
    def work(folder: Path) -> dict:
        (folder / "started").write_text("")
        time.sleep(600)
        return {}

    make(Store(Path(root)), work)


def test_a_killed_process_leaves_no_lock(tmp_path):
    store = Store(tmp_path).create()
    process = multiprocessing.get_context("spawn").Process(target=_hang, args=(str(tmp_path),))
    process.start()
    started = store.path("stage", KEY).with_suffix(".partial") / "started"
    deadline = time.monotonic() + 240
    while not started.exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert make(store, write("after"))[1] is False


def test_a_store_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"machine\.store"):
        Store(tmp_path / "file" / "store").create()


def test_a_journal_forgets_a_torn_batch_and_keeps_whole_ones(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(tmp_path)
    journal.append([{"id": "a"}, {"id": "b"}])
    journal.append([{"id": "ü"}])
    whole = path.read_bytes()
    for cut in range(1, 12):
        path.write_bytes(whole[:-cut])
        assert [row["id"] for row in read_journal(Journal(tmp_path).path)] == ["a", "b"]
        again = Journal(tmp_path)
        again.append([{"id": "c"}])
        assert [row["id"] for row in read_journal(Journal(tmp_path).path)] == ["a", "b", "c"]


def test_the_store_s_folder_is_the_field_s_else_the_environment_s_else_in_the_runs(
    tmp_path, monkeypatch
):
    runs = tmp_path / "runs"
    assert Machine(runs=str(runs)).store_root() == runs / "store"
    monkeypatch.setenv("SEVA_EXP_STORE", str(tmp_path / "shared"))
    assert Machine(runs=str(runs)).store_root() == tmp_path / "shared"
    assert Machine(store=str(tmp_path / "own")).store_root() == tmp_path / "own"


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_a_manifest_that_is_no_file_is_damage_and_not_waited_for(tmp_path, kind):
    store = Store(tmp_path)
    folder = store.path("samples", "k" * 64)
    folder.mkdir(parents=True)
    file = folder / MANIFEST
    {"pipe": os.mkfifo, "folder": Path.mkdir, "loop": lambda at: at.symlink_to(at)}[kind](file)
    assert store.find("samples", "k" * 64) is None
