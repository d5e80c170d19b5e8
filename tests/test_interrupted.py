"""A run that is killed or interrupted: what was finished stays, the same command resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .data.test_packed import encoded, write
from .slow import slow_but
from .test_end_to_end import ARTIFACTS, RUN, SAMPLES, files, go, small

ARTIFACTS_OF_FLIP = (
    "samples/samples.jsonl",
    "answers.clean/answers.jsonl",
    "answers.horizontal_flip/answers.jsonl",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shared_store):
    """What a run ends as that nobody disturbs."""
    return go(small(), tmp_path_factory.mktemp("undisturbed"), shared_store)


def _lines(folder: Path, pattern: str) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob(pattern))


@pytest.mark.parametrize(
    ("moment", "least", "stop"),
    [
        ("answers/*.partial/parts/journal-0.jsonl", 3, ["stop_after=pairs"]),
        ("evaluate/*.partial/parts/journal-0.jsonl", 5, []),
    ],
)
def test_kill_9_then_the_same_command_goes_on(cli, undisturbed, tmp_path, moment, least, stop):
    """A killed run keeps its finished batches, and ends as an undisturbed one does."""
    store = tmp_path / "runs" / "store"
    command = [sys.executable, "-m", "seva_exp", *RUN, *stop]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(2400):
        if _lines(store, moment) >= least or process.poll() is not None:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = _lines(store, moment)
    assert kept >= least, "the run was over before it could be killed"
    (journal,) = store.glob(moment)
    with journal.open("ab") as file:
        file.write(b'[{"sample_id": "torn')  # what a kill in the middle of a write leaves
    done = cli(*RUN, *stop)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    for name in ARTIFACTS[:4] if stop else ARTIFACTS:
        ours = (tmp_path / "runs" / "latest" / name).read_bytes()
        assert ours == (Path(undisturbed.dir) / name).read_bytes(), name
    theirs = json.loads((Path(undisturbed.dir) / "report.json").read_text())
    assert report["scores"] == ([] if stop else theirs["scores"])
    assert report["deltas"] == ([] if stop else theirs["deltas"])
    assert not list(store.glob("*/*.partial"))


def test_finished_batches_are_not_asked_again(tmp_path, monkeypatch):
    """Kill after two batches (an error stands for it): the second attempt asks only the rest."""
    from seva_exp.decoding.engine import Engine

    asked: list[int] = []
    real = Engine.run

    def counting(self, requests):
        for count, replies in enumerate(real(self, requests)):
            if not asked_before and count == 2:
                raise RuntimeError("killed")
            asked.append(len(replies))
            yield replies

    monkeypatch.setattr(Engine, "run", counting)
    asked_before = False
    with pytest.raises(RuntimeError):
        go(small(), tmp_path, stop_after="answers.clean", batch_size=8)
    assert len(asked) == 2 and 0 < sum(asked) < SAMPLES
    asked_before = True
    go(small(), tmp_path, stop_after="answers.clean", batch_size=8)
    assert sum(asked) == SAMPLES


def test_ctrl_c_leaves_a_store_that_the_next_run_uses(cli, tmp_path, undisturbed):
    command = [sys.executable, "-m", "seva_exp", *RUN]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    store = tmp_path / "runs" / "store"
    for _ in range(2400):
        if _lines(store, "*/*.partial/parts/journal-0.jsonl") >= 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in said
    assert "Traceback" not in said
    done = cli(*RUN, "stop_after=pairs")
    assert done.returncode == 0, done.stderr
    ours = (tmp_path / "runs" / "latest" / "pairs.jsonl").read_bytes()
    assert ours == files(undisturbed, "pairs.jsonl")["pairs.jsonl"]


@pytest.mark.parametrize("kind", slow_but(["parquet"], of=["parquet", "webdataset"]))
def test_kill_9_while_pictures_inside_files_are_answered(cli, tmp_path, kind):
    """The same command resumes, with the samples as they were, and ends as undisturbed."""
    ending = {"parquet": "parquet", "webdataset": "tar"}[kind]
    (tmp_path / "in").mkdir()
    for n in range(2):
        write(kind, tmp_path / "in" / f"{n}.{ending}", range(6 * n, 6 * n + 6))
    words = ["+aug=horizontal_flip", f"data={kind}", "data.path=in", "stop_after=pairs"]
    words += ["machine.batch_size=1", "tracker=none", "benchmark=none"]
    parts = "answers/*.partial/parts/journal-0.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "seva_exp", *words, "machine.store=store"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(6000):
        if _lines(tmp_path / "store", parts) >= 3 or process.poll() is not None:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert _lines(tmp_path / "store", parts) >= 3, "the run was over before it could be killed"
    found = {}
    for store in ("store", "undisturbed"):
        done = cli(*words, f"machine.store={store}")
        assert done.returncode == 0, done.stderr
        latest = tmp_path / "runs" / "latest"
        found[store] = [(latest / name).read_bytes() for name in ARTIFACTS_OF_FLIP]
        stages = json.loads((latest / "report.json").read_text())["stages"]
        assert stages[0]["cached"] == (store == "store")
    assert found["store"] == found["undisturbed"] and found["store"][0].count(b"\n") == 12


@pytest.mark.parametrize(
    "kind",
    [
        "parquet",
        pytest.param("webdataset", marks=pytest.mark.slow),
        pytest.param("folder", marks=pytest.mark.slow),
    ],
)
def test_kill_9_while_pictures_are_looked_at(cli, tmp_path, kind):
    """What was looked at is not looked at again, and the samples are the same, to the byte."""
    folder, words = tmp_path / "in", ["data=folder", "data.path=in", "data.max_broken=1"]
    folder.mkdir()
    if kind == "folder":
        for n in range(6000):
            (folder / f"{n:05d}.png").write_bytes(encoded(n % 250) if n % 9 else b"none")
    else:
        ending = {"parquet": "parquet", "webdataset": "tar"}[kind]
        some = [encoded(n) for n in range(250)] * 12
        for n in range(2):
            write(kind, folder / f"{n}.{ending}", range(3000 * n, 3000 * n + 3000), some)
        words[0] = f"data={kind}"
    words += ["+aug=horizontal_flip", "stop_after=samples", "tracker=none", "benchmark=none"]
    parts = "samples/*.partial/parts/made.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "seva_exp", *words, "machine.store=store"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not _lines(tmp_path / "store", parts) and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert _lines(tmp_path / "store", parts), "the run was over before it could be killed"
    found = {}
    for store in ("store", "undisturbed"):
        done = cli(*words, f"machine.store={store}")
        assert done.returncode == 0, done.stderr
        assert ("samples: goes on behind the " in done.stdout) == (store == "store")
        artifact = (tmp_path / "runs" / "latest" / "samples").resolve()
        assert {one.name for one in artifact.iterdir()} == {
            *("manifest.json", "samples.jsonl", "drops.jsonl")
        }
        found[store] = {
            name: (artifact / name).read_bytes() for name in ("samples.jsonl", "drops.jsonl")
        }
    assert found["store"] == found["undisturbed"]
    assert sum(content.count(b"\n") for content in found["store"].values()) == 6000
