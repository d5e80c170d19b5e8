"""Disks that are full or read-only, files that others cannot read, many processes on one store."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from seva_exp import InputError, Options
from seva_exp.core.disk import message_of_disk
from seva_exp.core.store import Manifest, Store
from seva_exp.experiment import run
from seva_exp.report.html import HtmlReport

from .core.test_store import KEY, make, write
from .faults import failing
from .test_end_to_end import RUN, cached, machine, small


def mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small disk of its own, where that can be had."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=300k", "none", str(folder)):
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(("size", "minutes"), [("300k", "null"), ("2500k", "0")])
def test_a_full_disk_is_told_and_the_same_command_goes_on(cli, disk, size, minutes):
    """The adapter alone has more than a megabyte; PEFT's safetensors write it, in Rust. There is
    room for it on the larger disk, and for no optimizer, which torch writes in C++."""
    assert mount("-o", f"remount,size={size}", str(disk))
    words = [*RUN, f"machine.store={disk}/store", f"machine.checkpoint_minutes={minutes}"]
    words.append("dpo.batch_size=2")  # several steps
    done = cli(*words)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "disk is full" in line]
    assert str(disk) in line and "MiB left" in line and "the same command resumes" in line
    assert "Traceback" not in done.stderr
    kept = sorted((disk / "store").glob("*/*/manifest.json"))
    assert mount("-o", "remount,size=20m", str(disk))
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert [path for path in kept if not path.exists()] == []
    assert done.stdout.count("cached") >= len(kept) > 0


def test_a_full_disk_of_the_runs_is_told(cli, disk, tmp_path):
    (disk / "fill").write_bytes(b"x" * 290_000)
    done = cli(*RUN, "stop_after=pairs", f"machine.runs={disk}", f"machine.store={tmp_path}/store")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert f"{disk}" in done.stderr and "disk is full (0 MiB left)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_without_an_inode_is_told(disk):
    assert mount("-o", "remount,nr_inodes=2", str(disk))
    (disk / "last").touch()
    with pytest.raises(OSError) as told:
        (disk / "more").touch()
    assert "no inode for another file, " in message_of_disk(told.value, disk)


def test_a_wholly_cached_run_only_reads_the_store(cli, disk, tmp_path):
    mount("-o", "remount,size=20m", str(disk))
    words = [*RUN, f"machine.store={disk}/store"]
    assert cli(*words).returncode == 0
    assert mount("-o", "remount,ro", str(disk))
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    done = cli(*words, "seed=3")
    assert done.returncode == 2
    assert "machine.store" in done.stderr and "Read-only file system" in done.stderr


def test_a_wholly_cached_run_asks_for_no_change_of_the_store(tmp_path, shared_store):
    def go(folder):
        options = Options(stop_after="pairs")
        own = machine(folder, tmp_path / "store", progress="off")
        return run(small(), own, options, listeners=[HtmlReport()])

    go(tmp_path / "a")
    with failing((tmp_path / "store",), "EROFS", 1) as layer:
        report = go(tmp_path / "b")
    tried = [one for one in layer.failed if not one.endswith("/used_by.txt")]
    assert tried == [], "only that another folder of runs uses it is noted, where that can be"
    assert all(cached(report).values())


@pytest.mark.parametrize("number", [28, 30, 13, 24, 5])
def test_an_error_of_a_disk_names_file_and_remedy(number, tmp_path):
    error = OSError(number, os.strerror(number), str(tmp_path / "a" / "b"))
    said = message_of_disk(error, tmp_path)
    assert str(tmp_path / "a") in said and "the same command resumes" in said
    nameless = message_of_disk(OSError(number, os.strerror(number)), tmp_path)
    assert str(tmp_path) in nameless and "None" not in nameless


# --- others


@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_files_have_the_modes_of_the_umask(tmp_path, umask):
    """Also those that a library wrote by a temporary file of its own."""

    def work(folder: Path) -> dict:
        (folder / "adapter").mkdir()
        number, name = tempfile.mkstemp(dir=folder)
        os.write(number, b"weights")
        os.close(number)
        Path(name).replace(folder / "adapter" / "adapter_model.safetensors")
        return {}

    before = os.umask(umask)
    try:
        store = Store(tmp_path).create()
        make(store, work)
    finally:
        os.umask(before)
    for file in store.path("stage", KEY).rglob("*"):
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode == (0o777 if file.is_dir() else 0o666) & ~umask, file


@pytest.fixture
def another_user() -> Iterator[Path]:
    """A folder that all may enter; then whoever runs the tests is root no more."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("what", ["adapter.json", "manifest.json", "."])
def test_what_may_not_be_read_is_told_as_that(another_user, what):
    store = Store(another_user).create()

    def work(folder: Path) -> dict:
        (folder / "adapter.json").write_text("{}")
        return {}

    make(store, work)
    place = store.path("stage", KEY)
    (place / what).chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(InputError, match=r"may not be read .*chmod -R a\+rX"):
            store.fault("stage", KEY)
        with pytest.raises(InputError, match=r"may not be read"):
            make(store, work)
    finally:
        if root:
            os.seteuid(0)
        (place / what).chmod(0o755)
    assert store.fault("stage", KEY) is None, "nothing was set aside"


# --- many at once

TOLD = "told"


def _until_deleted(lock: Path) -> None:
    """The lock file that is held is no longer there, or another is in its place."""
    with suppress(FileNotFoundError):
        held, deadline = lock.stat().st_ino, time.monotonic() + 120
        while lock.stat().st_ino == held:
            assert time.monotonic() < deadline
            time.sleep(0.002)


def _work_on_many(root: str, keys: int, number: int, meddling: str) -> None:
    """Every artifact of a store, in an order of one's own; who makes one notes it."""
    store = Store(Path(root))
    for i in range(keys):
        key = f"{(i + number) % keys:02d}" * 32

        def work(folder: Path, key: str = key) -> dict:
            with open(Path(root) / TOLD, "a") as file:
                file.write(f"{key[:2]}\n")
            if meddling != "none":
                _until_deleted(Path(root) / "locks" / f"stage-{key[:20]}.lock")
            for part in range(5):
                (folder / f"{part}.txt").write_text(f"{os.getpid()}")
                time.sleep(0.01)
            assert len({(folder / f"{p}.txt").read_text() for p in range(5)}) == 1, "not alone"
            return {"by": os.getpid()}

        def described(seconds: float, summary: dict, key: str = key) -> Manifest:
            return Manifest("stage", 1, key, {}, {}, {}, seconds, summary)

        made, _ = store.make(described, "stage", key, work)
        folder = store.path("stage", key)
        assert (folder / "0.txt").read_text() == str(made.summary["by"])


@pytest.mark.parametrize("meddling", ["none", "locks deleted"])
def test_eight_processes_make_each_artifact_once(tmp_path, meddling):
    """Also where all lock files are deleted again and again while they are held."""
    Store(tmp_path).create()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    every = [(str(tmp_path), 12, i, meddling) for i in range(8)]
    many = [context.Process(target=_work_on_many, args=one) for one in every]
    for one in many:
        one.start()
    deleted = 0
    while any(one.is_alive() for one in many):
        for lock in (tmp_path / "locks").glob("*") if meddling != "none" else ():
            lock.unlink(missing_ok=True)
            deleted += 1
        time.sleep(0.005)
    assert [one.exitcode for one in many] == [0] * 8
    assert sorted((tmp_path / TOLD).read_text().split()) == [f"{i:02d}" for i in range(12)]
    assert sorted(path.name for path in (tmp_path / "stage").iterdir()) == sorted(
        (f"{i:02d}" * 10) for i in range(12)
    )
    assert meddling == "none" or deleted >= 12


def test_a_folder_that_is_put_in_its_place_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    store, real, taken = Store(tmp_path).create(), os.mkdir, []

    def mkdir(path, *options):
        real(path, *options)
        if str(path).endswith(".partial") and not taken:
            taken.append(path)
            os.rmdir(path)  # as the rename of another process that is done with it

    monkeypatch.setattr(os, "mkdir", mkdir)
    manifest = Manifest("stage", 1, KEY, {}, {}, {}, 0.0)
    assert store.make(lambda *_: manifest, "stage", KEY, lambda folder: {})[1] is False
    assert taken and store.find("stage", KEY)


def test_stale_locks_and_a_clock_that_was_set_back_hold_up_nothing(tmp_path):
    """All that is there is of an hour later; the lock files are of processes long gone."""
    store = Store(tmp_path).create()
    later = time.time() + 3600
    partial = store.path("stage", KEY).with_suffix(".partial")
    (partial / "parts").mkdir(parents=True)
    for lock in (
        tmp_path / "locks" / f"stage-{KEY[:20]}.lock",
        partial / "parts" / "rank-work.lock",
        partial / "parts" / "rank-0.lock",
    ):
        lock.write_text("4194304")
        os.utime(lock, (later, later))
    assert make(store, write("first"))[1] is False
    for file in tmp_path.rglob("*"):
        os.utime(file, (later, later))
    assert make(store, write("second"))[1] is True
    assert make(store, write("second"), force=True)[1] is False
    assert store.fault("stage", KEY) is None


@pytest.mark.slow
def test_eight_runs_at_once_on_one_store(tmp_path):
    """Whole commands, four of one seed and four of another."""
    command = [sys.executable, "-m", "seva_exp", *RUN, "stop_after=pairs", "machine.threads=1"]
    many = [
        subprocess.Popen(
            [*command, f"seed={i % 2}", f"machine.store={tmp_path}/store", f"machine.runs=runs{i}"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(8)
    ]  # fmt: skip
    said = [one.communicate()[0] for one in many]
    assert [one.returncode for one in many] == [0] * 8, said
    for seed in (0, 1):
        reports = [tmp_path / f"runs{i}" / "latest" for i in range(seed, 8, 2)]
        assert len({(one / "pairs.jsonl").read_bytes() for one in reports}) == 1
        rows = [json.loads((one / "report.json").read_text())["stages"] for one in reports]
        for stage in zip(*rows, strict=True):
            made = [row["cached"] for row in stage].count(False)
            assert made <= 1, stage[0]["name"]
