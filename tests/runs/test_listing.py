"""Lists of runs: their state also after a kill, what they are called; told quickly, within the
terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from seva_exp.augment import Moco
from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine
from seva_exp.core.store import Store
from seva_exp.experiment.shown import from_defaults
from seva_exp.experiment.value import Experiment
from seva_exp.experiment.why import why
from seva_exp.methods import AdapterMethod
from seva_exp.runs.__main__ import main
from seva_exp.runs.listing import RunFolder, find_run, run_folder, runs_in
from seva_exp.runs.scores import MainScore
from seva_exp.runs.state import read_state
from seva_exp.runs.tables import Row, folded, list_text, whole_entries
from seva_exp.training import DpoTraining

from .made_up import artifact, begun, done


@pytest.fixture
def home(tmp_path):
    store = Store(tmp_path / "runs" / "store").create()
    pairs = artifact(store, "pairs", {"views": ["moco"]})
    return tmp_path / "runs", store, done(tmp_path / "runs", store, "moco", [("pairs", pairs)])


def listed(root, *words, capsys) -> list[dict]:
    assert main(["ls", "--json", *words, "--runs", str(root)]) == 0
    return json.loads(capsys.readouterr().out)


WORKING = """
import sys, time
from pathlib import Path
from seva_exp.runs.state import State, StateFile
file = StateFile(Path(sys.argv[1]), State(name="killed", method="seva"))
file.stage("answers.moco")
print("begun", flush=True)
time.sleep(600)
"""


def test_a_killed_run_is_stopped_and_a_live_one_runs(home, capsys):
    folder = home[0] / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_killed"
    folder.mkdir()
    command = [sys.executable, "-c", WORKING, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "begun\n"
        rows = listed(home[0], "--name", "killed", capsys=capsys)
        assert rows[0]["state"] == "running"
        before = (folder / "state.json").stat().st_mtime_ns
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert listed(home[0], "--state", "stopped", capsys=capsys)[0]["name"] == "killed"
    assert (folder / "state.json").stat().st_mtime_ns == before, "who looks writes nothing"
    assert read_state(folder).stage == "answers.moco"


def test_without_a_lock_the_process_tells(home, tmp_path):
    folder = home[0] / "2026-01-01_00-00-00_x"
    folder.mkdir()
    told = {"state": "running", "locked": False, "began": time.time(), "pid": os.getpid()}
    told["host"] = os.uname().nodename
    (folder / "state.json").write_text(json.dumps(told))
    assert read_state(folder).state == "running"
    (folder / "state.json").write_text(json.dumps(told | {"began": 1e9}))  # another had that pid
    assert read_state(folder).state == "stopped"
    (folder / "state.json").write_text(json.dumps(told | {"host": "elsewhere", "pid": 1}))
    assert read_state(folder).state == "running", "what cannot be told counts as at work"


def test_states_of_runs_that_end_and_of_earlier_versions(home):
    failed, _ = begun(home[0], home[1], "failed", [])
    failed.failed(ValueError("no such thing"))
    assert RunFolder(failed.path).state == "failed"
    assert RunFolder(failed.path).told.message == "no such thing"
    assert "stopped: no such thing" in (failed.path / "run.log").read_text()
    for file in ("state.json", "run.lock"):
        (failed.path / file).unlink()
        (home[2] / file).unlink()
    assert RunFolder(failed.path).state == "failed" and RunFolder(home[2]).state == "done"
    (failed.path / "error.txt").unlink()
    assert RunFolder(failed.path).state == "stopped"
    row = {"name": "pairs", "key": "a" * 64, "kind": "pairs"}
    (failed.path / "plan.json").write_text(json.dumps([row]))
    with FileLock(home[1].root / "locks" / f"pairs-{'a' * 20}.lock"):
        assert RunFolder(failed.path).state == "running"
    assert RunFolder(failed.path).state == "stopped"
    assert RunFolder(home[2]).name == "moco" and RunFolder(home[2]).facts["views"] == ("moco",)


def test_a_run_is_found_by_all_that_it_is_called(home, tmp_path, monkeypatch):
    root, store, moco = home
    noise = done(root, store, "diffusion_noise", [])
    spaced = root / "my run of today"
    moco.rename(spaced)
    RunFolder(noise).relabel(name="the good one")
    monkeypatch.chdir(tmp_path)
    for said, path in {
        "runs/latest": noise, str(noise): noise, noise.name: noise, "latest": noise,
        "diffusion_noise": noise, "diff": noise, noise.name[:-5]: noise, "The good": noise,
        "runs/my run of today/": spaced, "my run": spaced,
    }.items():  # fmt: skip
        assert find_run(said, root).path == path, said
    for said, why_not in {
        "difusion_noise": "Did you mean 'diffusion_noise'?",
        "nothing like it": "no run in",
        "runs": "no run in",
        "store": "holds no run. Give one of the runs in it",
        "runs/my run of toda": "Did you mean 'runs/my run of today'?",
        "": "no run in",
    }.items():
        with pytest.raises(InputError, match=why_not):
            find_run(said, root)
    done(root, store, "diffusion_noise", [])
    with pytest.raises(InputError, match=r"2 runs are called so: 20.*-2, 20|2 runs are called so"):
        find_run("diffusion_noise", root)


def test_names_and_tags_are_kept_and_sought(home, capsys):
    root = str(home[0])
    assert main(["tag", "moco", "good", "for the paper", "--runs", root]) == 0
    assert main(["rename", "moco", "Best of all", "--runs", root]) == 0
    assert main(["tag", "Best", "good", "--remove", "--runs", root]) == 0
    capsys.readouterr()
    found = listed(root, "--tag", "for*", capsys=capsys)
    assert [(one["name"], one["tags"]) for one in found] == [("Best of all", ["for the paper"])]
    for words, said in {
        ("tag", "moco", " "): "a tag has",
        ("tag", "moco", "goood", "--remove"): "has no such tag",
        ("rename", "moco", "a/b"): "no '/'",
        ("ls", "--tag", "for the papr"): "Did you mean 'for the paper'?",
        ("ls", "--method", "stic"): "Known: seva",
        ("ls", "--runs", root + "/none"): "no such folder",
    }.items():
        assert main([*words, *([] if "--runs" in words else ["--runs", root])]) == 2
        assert said in capsys.readouterr().err


def made_up_runs(root, store, count: int) -> None:
    """With names as long as sweeps make them, and all in other stages."""
    sample = done(root, store, "sample", [("pairs", artifact(store, "pairs", {"n": -1}))])
    texts = {name: (sample / name).read_text() for name in ("state.json", "report.json")}
    for number in range(count):
        began = datetime(2026, 1, 1) + timedelta(hours=number)
        folder = root / f"{began:%Y-%m-%d_%H-%M-%S}_diffusion_noise_step={number}_beta=0.1"
        folder.mkdir()
        key = artifact(store, "pairs", {"n": number})
        for name, text in texts.items():
            (folder / name).write_text(text.replace("sample", f"diffusion_noise_step={number}"))
        (folder / "config.yaml").write_text((sample / "config.yaml").read_text())
        (folder / "plan.json").write_text(json.dumps([{"name": "pairs", "key": key}]))


def test_a_list_fits_the_terminal_and_is_sorted(home, capsys, monkeypatch):
    root, store, _ = home
    made_up_runs(root, store, 30)
    for columns in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["ls", "--runs", str(root)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns
    assert len(lines) == 32 + 3
    assert lines[0] == "all of them: method seva, model tiny, views moco"
    assert "pope accuracy +3.0*" in lines[4]
    dates = [row["began"] for row in listed(root, capsys=capsys)]
    assert dates == sorted(dates, reverse=True)
    names = [row["name"] for row in listed(root, "--sort", "name", "--limit", "3", capsys=capsys)]
    assert names == sorted(names) and len(names) == 3


SCORES = [
    ("pope", "accuracy", 0.4, "not significant"),
    ("chair", "chair_sentence", -1.2, "better"),
    ("vqa", "accuracy", 2.5, "better"),
]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_in_a_narrow_list_is_cut_within_a_word(home, monkeypatch, columns):
    root, store, _ = home
    made_up_runs(root, store, 3)
    monkeypatch.setenv("COLUMNS", str(columns))
    runs = runs_in(root)
    runs[0].relabel(add=["for the paper", "good"])
    scores = [
        MainScore(split, split, name, 50, change, verdict)
        for split, name, change, verdict in SCORES
    ]
    rows = [Row(runs[i], 41, tuple(scores[: 3 - i % 3]), 10, 10, 2**21) for i in range(4)]
    text = list_text(rows)
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns, text
    assert re.sub(", …", "", text).count("…") == 0, text
    for row in rows:
        first, *_ = (one for one in lines if row.scores[0].text in one)
        told = [one.text for one in row.scores if one.text in text]
        assert ", ".join(told) in text and first, "entries are whole"
        pieces = re.findall(r"[^_]+_?", row.run.name)
        assert all(piece in text for piece in pieces), (text, pieces)
    if columns == 60:
        assert lines[-1].startswith("left out, --json has all: size, ")
    else:
        assert "MiB" in text and "left out" not in text


def test_lines_break_where_words_end():
    assert folded("diffusion_noise_step=700 x", 12) == ["diffusion_", "noise_", "step=700 x"]
    assert folded("", 5) == [""]
    assert folded("abcdefgh", 5) == ["abcd…"]
    assert whole_entries("a 1, bb 2, c 3", 10) == "a 1, …"
    assert whole_entries("a 1, bb 2, c 3", 14) == "a 1, bb 2, c 3"
    assert whole_entries("a 1, bb 2, c 3", 0) == "a 1, …"


QUICK = """
import sys
from seva_exp.runs.__main__ import main
for words in (["ls"], ["du"], ["gc"], ["gc", "--json"], ["rm", "sample"]):
    assert main([*words, "--runs", sys.argv[1]]) == 0, words
heavy = {"torch", "transformers", "trl", "peft", "wandb", "seva_exp.stages", "seva_exp.experiment"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


def test_lists_load_no_model_and_no_stage(home):
    made_up_runs(home[0], home[1], 2)
    command = [sys.executable, "-c", QUICK, str(home[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_why_follows_a_difference_to_where_it_comes_from(home, capsys):
    root, store, _ = home
    keys = {}
    for name, seed, view in (("a", 0, "moco"), ("b", 1, "flip")):
        samples = artifact(store, "samples", {"seed": seed, "data": {"kind": "shapes"}})
        clean = artifact(store, "answers", {"view": {"kind": "clean"}}, {"samples": samples})
        asked = artifact(
            store, "answers", {"view": {"kind": view, "x": seed}}, {"samples": samples}
        )
        made_from = {"answers.clean": clean, f"answers.{view}": asked}
        pairs = artifact(store, "pairs", {"filters": []}, made_from)
        keys[name] = {"samples": samples, **made_from, "pairs": pairs}
    runs = [RunFolder(done(root, store, name, [*keys[name].items()])) for name in keys]
    found = why("pairs", *runs)
    assert [(root.path, root.fields) for root in found.roots] == [
        (("pairs", "answers.clean", "samples"), (("seed", 0, 1),)),
        (("pairs", "answers.moco (B: answers.flip)"), (("view.kind", "moco", "flip"),)),
    ]
    assert why("pairs", runs[0], runs[0]).roots == ()
    words = ["why", "pairs", "a", "b", "--runs", str(root)]
    assert main(words) == 0
    assert "because of samples <- answers.clean <- pairs:\n  seed\n    A: 0\n    B: 1" in (
        capsys.readouterr().out
    )
    assert main([*words, "--json"]) == 0 and json.loads(capsys.readouterr().out)["roots"]
    assert main(["why", "pears", *words[2:]]) == 2
    assert "Did you mean 'pairs'?" in capsys.readouterr().err
    store.path("samples", keys["a"]["samples"]).joinpath("manifest.json").unlink()
    assert main(words) == 2 and "cannot be told" in capsys.readouterr().err


def test_what_differs_from_the_defaults_is_shown():
    experiment = Experiment(method=AdapterMethod(adapter="x/y"), seed=3)
    assert from_defaults({**experiment.to_json(), "name": "me"}) == [
        ("seed", 3, 0),
        ("method.kind", "adapter", "seva"),
        ("method.adapter", "x/y", "(absent)"),
    ]
    aligned = Experiment(aug={"a": Moco(size=64)}, benchmark={}, dpo=DpoTraining(beta=0.3))
    machine = {**Machine().to_json(), "batch_size": 7, "store": "/x"}
    assert [row[0] for row in from_defaults({**aligned.to_json(), "machine": machine})] == [
        *("aug.a", "aug.a.size", "dpo.beta", "benchmark.shapes", "machine.batch_size"),
    ]


def test_runs_of_a_folder_leave_stores_and_links_out(home, tmp_path):
    (home[0] / "again").symlink_to(home[2], target_is_directory=True)
    assert [run.path for run in runs_in(home[0])] == [home[2]]


def test_other_commands_know_runs_by_name(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_folder("moco") == run_folder(str(home[2])) == home[2]
    assert run_folder("runs/nothing") == Path("runs/nothing")
    with pytest.raises(InputError, match="Did you mean 'moco'"):
        run_folder("mocco")
    monkeypatch.chdir(home[2])
    assert run_folder("moco") == Path("moco"), "no runs/ here"
