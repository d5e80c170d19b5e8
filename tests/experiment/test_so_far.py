"""The pairs of a run that is not done are those that it will have, of the samples answered."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seva_exp import Options
from seva_exp.augment import DiffusionNoise, HorizontalFlip, Moco, SwapWords
from seva_exp.core.errors import InputError
from seva_exp.core.records import Drop, Pair, read_jsonl
from seva_exp.core.store import Journal
from seva_exp.experiment import run
from seva_exp.experiment.so_far import pairs_so_far
from seva_exp.methods import SticMethod
from seva_exp.preferences.filters import DownSampleFilter, EqualFilter
from seva_exp.runs.__main__ import main

from ..test_end_to_end import RUN, SAMPLES, go, machine, small

CLEAN, NOISE = "answers.clean", "answers.diffusion_noise"


def stopped(folder: Path, monkeypatch, experiment, batches: int, **changes) -> Path:
    """The folder of a run that ends after so many batches of answers."""
    real, count = Journal.append, 0

    def append(self, rows):
        nonlocal count
        real(self, rows)
        count += "answers" in str(self.path)
        if count == batches:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        with pytest.raises(KeyboardInterrupt):
            options = Options(stop_after="pairs")
            run(experiment, machine(folder, batch_size=4, progress="off", **changes), options)
    return folder / "runs" / "latest"


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """All files, with their sizes and times."""
    status = {str(file): file.stat() for file in folder.rglob("*") if file.is_file()}
    return {name: (one.st_size, one.st_mtime_ns) for name, one in status.items()}


EXPERIMENTS = {
    "one view": {"filters": (EqualFilter(),)},
    "two views": {"aug": {"a": DiffusionNoise(step=800), "b": Moco()}},
    "a view is drawn": {
        "method": SticMethod(),
        "aug": {"a": DiffusionNoise(step=900), "b": HorizontalFlip(probability=1.0)},
    },
    "texts": {"aug": {"a": DiffusionNoise(step=900), "words": SwapWords()}},
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_they_are_those_of_the_finished_run(name, tmp_path, monkeypatch, shared_store):
    experiment = small(**EXPERIMENTS[name])
    done = go(experiment, tmp_path / "done", shared_store, stop_after="pairs", batch_size=4)
    final = list(read_jsonl(Path(done.dir) / "pairs.jsonl", Pair))
    drops = {d.sample_id: d for d in read_jsonl(Path(done.dir) / "pairs/drops.jsonl", Drop)}
    assert pairs_so_far(Path(done.dir), 99).latest == tuple(final)
    seen = set()
    for batches in (8, 15 if name == "two views" else 10):
        folder = stopped(tmp_path / str(batches), monkeypatch, experiment, batches)
        before = content(tmp_path / str(batches))
        found = pairs_so_far(folder, 99)
        assert content(tmp_path / str(batches)) == before, "something was written"
        assert found.samples == SAMPLES and found.stage == "pairs"
        together = found.counts["sampled"]
        seen.add(together)
        assert found.counts["kept"] == len(found.latest)
        if name in ("one view", "two views"):
            assert together == min(done for done, _ in found.answered.values())
        if not found.missing:
            assert set(found.latest) <= set(final)
            left = together - len(found.latest)
            assert left == sum(found.counts["dropped"].values()) <= len(drops)
    assert len(seen) == 2


def test_a_view_that_has_not_begun_is_told_and_waited_for_by_none(tmp_path, monkeypatch):
    experiment = small(aug={"a": DiffusionNoise(step=800), "b": Moco()})
    folder = stopped(tmp_path, monkeypatch, experiment, 7 + 3)
    found = pairs_so_far(folder, 2)
    assert found.answered[CLEAN] == (SAMPLES, SAMPLES)
    done, total = found.answered["answers.a"]
    assert 0 < done < total == SAMPLES
    assert found.missing == ("answers.b",)
    assert found.counts["sampled"] == done
    assert all(pair.views == ("a",) for pair in found.latest) and len(found.latest) <= 2


def test_filters_that_look_at_all_judge_what_is_there(tmp_path, monkeypatch):
    rules = (EqualFilter(), DownSampleFilter(count=3))
    folder = stopped(tmp_path, monkeypatch, small(filters=rules), 12)
    found = pairs_so_far(folder, 99)
    assert found.counts["kept"] == 3 < found.counts["sampled"]


def test_what_is_asked_anew_is_told_as_it_comes(tmp_path, monkeypatch):
    go(small(), tmp_path, stop_after="pairs")
    real, count = Journal.append, 0

    def append(self, rows):
        nonlocal count
        real(self, rows)
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", append)
    with pytest.raises(KeyboardInterrupt):
        go(small(), tmp_path, stop_after="pairs", force=("answers.clean",), batch_size=4)
    done, total = pairs_so_far(tmp_path / "runs" / "latest", 1).answered[CLEAN]
    assert 0 < done < total == SAMPLES


def test_a_damaged_shard_is_not_taken_and_stays(tmp_path, monkeypatch, capfd):
    from seva_exp.preferences import shards

    monkeypatch.setattr(shards, "SMALLEST", 8)
    monkeypatch.setattr(shards, "LARGEST", 8)
    folder = stopped(tmp_path, monkeypatch, small(), 11)
    (parts,) = (tmp_path / "store" / "answers").glob("*.partial/parts")
    before = pairs_so_far(folder, 0).answered
    whole = next(iter(sorted(parts.glob("[0-9]*.jsonl"))))
    whole.write_bytes(whole.read_bytes().replace(b"e", b"a"))
    after = pairs_so_far(folder, 0).answered
    lost = whole.read_bytes().count(b"\n")
    assert after[NOISE][0] == before[NOISE][0] - lost
    assert whole.exists()


@pytest.mark.slow
def test_a_run_that_is_killed_and_one_that_works(cli, tmp_path, capfd):
    """By the command, beside a run of two processes that goes on meanwhile."""
    words = [*RUN, "stop_after=pairs", "data.samples=90", "machine.processes=2"]
    words += ["machine.batch_size=4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "seva_exp", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    latest, told = tmp_path / "runs" / "latest", []
    while process.poll() is None and not any(found["counts"]["kept"] for found in told):
        if latest.exists() and main(["pairs", str(latest), "--json"]) == 0:
            told.append(json.loads(capfd.readouterr().out))
        time.sleep(0.2)
    assert process.poll() is None, "the run was over before it could be looked at"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    capfd.readouterr()
    assert main(["pairs", str(latest), "--limit", "1"]) == 0
    said = capfd.readouterr().out
    assert "answers.clean: 90 of 90 answered" in said and "(90 in all)" in said
    assert said.count("  chosen: ") == 1
    assert cli(*words).returncode == 0
    final = (latest / "pairs.jsonl").read_text().splitlines()
    assert {json.dumps(pair, sort_keys=True) for pair in told[-1]["latest"]} <= {
        json.dumps(json.loads(line), sort_keys=True) for line in final
    }
    sampled = [found["counts"]["sampled"] for found in told]
    assert sampled == sorted(sampled)


def test_what_is_no_run_is_told(tmp_path, capsys, monkeypatch, shared_store):
    assert main(["pairs", str(tmp_path / "nowhere")]) == 2
    assert "holds no run" in capsys.readouterr().err
    done = go(small(), tmp_path, shared_store, stop_after="pairs")
    folder = Path(done.dir)
    (folder / "samples").unlink()
    with pytest.raises(InputError, match="no stage of this run is done"):
        pairs_so_far(folder, 1)
    (folder / "plan.json").write_text("[")
    with pytest.raises(InputError, match=r"cannot be told.*given again"):
        pairs_so_far(folder, 1)
    (folder / "plan.json").unlink()
    with pytest.raises(InputError, match=r"it has no plan\.json: an earlier version"):
        pairs_so_far(folder, 1)


def test_what_is_gone_from_the_store_is_told(tmp_path, capsys):
    done = go(small(), tmp_path, stop_after="answers.clean")
    folder = Path(done.dir)
    assert pairs_so_far(folder, 1).counts["kept"] == 0
    assert main(["pairs", str(folder)]) == 0
    assert "none, since no negative view has begun" in capsys.readouterr().out
    shutil.rmtree((folder / "samples").resolve())
    with pytest.raises(InputError, match="is gone from the store"):
        pairs_so_far(folder, 1)
