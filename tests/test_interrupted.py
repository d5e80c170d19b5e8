"""A run that is killed or interrupted: what was finished stays, the same command resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import seva_exp

from .data.test_packed import encoded, write
from .forking import Ends
from .slow import slow_but
from .test_end_to_end import ARTIFACTS, RUN, SAMPLES, files, go, small

ARTIFACTS_OF_FLIP = (
    "samples/samples.jsonl",
    "answers.clean/answers.jsonl",
    "answers.horizontal_flip/answers.jsonl",
)


ANSWERS = "answers/*.partial/parts/journal-0.jsonl"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shared_store):
    """What a run ends as that nobody disturbs."""
    return go(small(), tmp_path_factory.mktemp("undisturbed"), shared_store)


def _lines(folder: Path, pattern: str) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob(pattern))


@pytest.mark.parametrize(
    ("moment", "least", "stop"),
    [
        (ANSWERS, 3, ["stop_after=pairs"]),
        ("evaluate/*.partial/parts/journal-0.jsonl", 5, []),
    ],
)
def test_kill_9_then_the_same_command_goes_on(cli, undisturbed, tmp_path, moment, least, stop):
    """A killed run keeps its finished batches, and ends as an undisturbed one does."""
    store = tmp_path / "runs" / "store"
    killed = cli(*RUN, *stop, ends=Ends(f"*/{moment}", least))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert _lines(store, moment) == least
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
    stopped = cli(*RUN, ends=Ends(f"*/{ANSWERS}", 2, signal.SIGINT))
    assert stopped.returncode == 130
    assert "the same command resumes" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert _lines(tmp_path / "runs" / "store", ANSWERS) == 2
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
    killed = cli(*words, "machine.store=store", ends=Ends(f"*/{ANSWERS}", 3))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert _lines(tmp_path / "store", ANSWERS) == 3
    found = {}
    for store in ("store", "undisturbed"):
        done = cli(*words, f"machine.store={store}")
        assert done.returncode == 0, done.stderr
        latest = tmp_path / "runs" / "latest"
        found[store] = [(latest / name).read_bytes() for name in ARTIFACTS_OF_FLIP]
        stages = json.loads((latest / "report.json").read_text())["stages"]
        assert stages[0]["cached"] == (store == "store")
    assert found["store"] == found["undisturbed"] and found["store"][0].count(b"\n") == 12


PICTURES = 2500
"""More than a kill loses while they are looked at."""


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
        for n in range(PICTURES):
            (folder / f"{n:05d}.png").write_bytes(encoded(n % 250) if n % 9 else b"none")
    else:
        ending = {"parquet": "parquet", "webdataset": "tar"}[kind]
        half = PICTURES // 2
        some = ([encoded(n) for n in range(250)] * 12)[:half]
        for n in range(2):
            write(kind, folder / f"{n}.{ending}", range(half * n, half * n + half), some)
        words[0] = f"data={kind}"
    words += ["+aug=horizontal_flip", "stop_after=samples", "tracker=none", "benchmark=none"]
    parts = "samples/*.partial/parts/made.jsonl"
    killed = cli(*words, "machine.store=store", ends=Ends(f"*/{parts}", 1))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert _lines(tmp_path / "store", parts) == 1
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
    assert sum(content.count(b"\n") for content in found["store"].values()) == PICTURES


AT_AN_IMPORT = """
import os, signal, sys

class Press:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "seva_exp.core.errors":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press)
"""
"""A ``sitecustomize``: Ctrl-C in the middle of the imports."""


@pytest.mark.parametrize("module", ["seva_exp", "seva_exp.runs", "seva_exp.evaluate"])
def test_ctrl_c_at_the_imports_ends_without_a_traceback(module, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(AT_AN_IMPORT, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(Path(seva_exp.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_who_imports_the_package_keeps_the_own_way_with_ctrl_c(tmp_path):
    code = "import signal, seva_exp; print(signal.getsignal(signal.SIGINT).__name__)"
    words = [sys.executable, "-c", code, "-m", "seva_exp"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "default_int_handler\n"
