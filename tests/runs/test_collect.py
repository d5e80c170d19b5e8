"""Garbage collection and removal of runs: what a run stands on stays, whatever happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import select
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from filelock import FileLock

from seva_exp.core.store import Store
from seva_exp.runs import verbs
from seva_exp.runs.__main__ import main
from seva_exp.runs.verify import verify_store

from .made_up import artifact, begun, done


@pytest.fixture
def home(tmp_path):
    """A store; a finished run on three artifacts, of which it names the last alone; two artifacts
    that no run names."""
    store = Store(tmp_path / "runs" / "store").create()
    samples = artifact(store, "samples", {"n": 1})
    answers = artifact(store, "answers", {"view": "moco"}, {"samples": samples})
    pairs = artifact(store, "pairs", {}, {"answers.moco": answers})
    loose = artifact(store, "samples", {"n": 2})
    unread = artifact(store, "answers", {"view": "flip"}, {"samples": loose})
    done(tmp_path / "runs", store, "one", [("pairs", pairs)])
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "kept").write_text("kept")
    names = {"samples": samples, "answers": answers, "pairs": pairs, "loose": loose}
    return tmp_path, store, names | {"unread": unread}


def runs(home, *words: str) -> int:
    return main([*words, "--runs", str(home[0] / "runs")])


@pytest.mark.parametrize("words", [["gc"], ["rm", "one"]])
def test_ctrl_c_at_the_question_removes_nothing_and_is_told(home, words):
    """As a person sees it on a terminal."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "seva_exp.runs", *words, "--runs", str(home[0] / "runs")],
        stdin=its, stdout=its, stderr=its, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:  # fmt: skip
        os.close(its)
        seen = b""
        with contextlib.suppress(OSError):  # the terminal closes with the command
            while True:
                if select.select([ours], [], [], 2)[0]:
                    seen += os.read(ours, 4096)  # perhaps half a line
                elif seen.endswith((b"[y/N] ", b"[y/N] ^C")):
                    os.write(ours, b"\x03")  # once more: readline may not have begun to wait
        os.close(ours)
    said = seen.decode()
    assert process.returncode == 130, said
    assert "nothing was removed\r\nseva_exp: Interrupted. Nothing is half removed" in said
    assert there(home) == {"samples", "answers", "pairs", "loose", "unread"}
    assert len([*(home[0] / "runs").glob("*_one")]) == 1


def there(home) -> set[str]:
    """The named artifacts that are in the store."""
    known = {key[:20]: name for name, key in home[2].items()}
    return {known[path.name] for path in home[1].artifacts() if path.name in known}


def test_what_no_run_names_goes_and_inputs_of_inputs_stay(home, capsys):
    assert runs(home, "gc") == 0
    assert "nothing was removed: add --yes" in capsys.readouterr().out
    assert there(home) == {"samples", "answers", "pairs", "loose", "unread"}
    assert runs(home, "gc", "--yes") == 0
    assert there(home) == {"samples", "answers", "pairs"}
    assert "removed 2 folders" in capsys.readouterr().out
    assert verify_store(home[1]).faults == []
    assert runs(home, "gc", "--yes") == 0 and "nothing to remove" in capsys.readouterr().out


def test_json_tells_and_removes_nothing_by_itself(home, capsys):
    assert runs(home, "gc", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {Path(row["path"]).name for row in told["garbage"]} == {
        home[2][name][:20] for name in ("loose", "unread")
    }
    assert told["bytes"] > 400 and told["removed"] == 0 and len(there(home)) == 5


def test_an_unfinished_run_and_a_sweeps_hold_theirs(home, tmp_path):
    folder, _ = begun(tmp_path / "runs", home[1], "stopped", [("answers.flip", home[2]["unread"])])
    partial = home[1].path("pairs", "a" * 64).with_suffix(".partial")
    (partial / "parts").mkdir(parents=True)
    inside = tmp_path / "runs" / "multirun" / "today"
    named, _ = begun(inside, home[1], "job", [("pairs", "a" * 64)])
    for one in (folder, named):
        one.failed(KeyboardInterrupt())
    assert runs(home, "gc", "--yes") == 0
    assert there(home) == {"samples", "answers", "pairs", "loose", "unread"} and partial.is_dir()
    shutil.rmtree(named.path)
    assert runs(home, "gc", "--yes") == 0
    assert not partial.exists()


def test_runs_elsewhere_that_used_the_store_hold_theirs(home, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    done(elsewhere, home[1], "two", [("answers.flip", home[2]["unread"])])
    assert runs(home, "gc", "--yes") == 0
    assert "unread" in there(home) and "loose" in there(home)
    elsewhere.rename(tmp_path / "unmounted")
    assert runs(home, "gc", "--yes") == 2
    assert f"--forget {elsewhere}" in capsys.readouterr().err and "unread" in there(home)
    assert runs(home, "gc", "--yes", "--forget", str(elsewhere)) == 0
    assert there(home) == {"samples", "answers", "pairs"}


def test_what_a_process_works_on_stays(home, capsys):
    store, unread = home[1], home[2]["unread"]
    partial = store.path("align", "b" * 64).with_suffix(".forced")
    (partial / "parts").mkdir(parents=True)
    with (
        FileLock(store.root / "locks" / f"answers-{unread[:20]}.lock"),
        FileLock(partial / "parts" / "rank-2.lock"),
    ):
        assert runs(home, "gc", "--yes") == 0
        assert "unread" in there(home) and partial.is_dir()
        assert "2 more folders: a process works there" in capsys.readouterr().out
    assert runs(home, "gc", "--yes") == 0
    assert "unread" not in there(home) and not partial.exists()


def test_a_run_that_begins_meanwhile_holds_what_it_names(home, tmp_path, monkeypatch, capsys):
    real = verbs.collect

    def slowly(holdings, what):
        begun(tmp_path / "runs", home[1], "new", [("answers.flip", home[2]["unread"])])
        return real(holdings, what)

    monkeypatch.setattr(verbs, "collect", slowly)
    assert runs(home, "gc", "--yes") == 1
    assert there(home) == {"samples", "answers", "pairs", "loose", "unread"}
    assert "a run that has just begun names it" in capsys.readouterr().err


def test_what_is_young_is_kept_when_days_are_given(home):
    old = home[1].path("samples", home[2]["loose"])
    for path in (*old.rglob("*"), old):
        os.utime(path, (1e9, 1e9))
    assert runs(home, "gc", "--yes", "--keep-days", "2") == 0
    assert there(home) == {"samples", "answers", "pairs", "unread"}


def test_what_was_set_aside_goes_and_a_newer_versions_stays_where_it_is_named(home):
    path = home[1].path("pairs", home[2]["pairs"])
    for how in ("damaged", "newer"):
        shutil.copytree(path, path.with_name(f"{path.name}.{how}-20260101-000000"))
    assert runs(home, "gc", "--yes") == 0
    assert [one.name for one in path.parent.iterdir() if "-2026" in one.name] == [
        f"{path.name}.newer-20260101-000000"
    ]


@pytest.mark.parametrize("broken", ["plan.json", "report.json"])
def test_a_run_that_cannot_be_read_stops_it(home, capsys, broken):
    run = next((home[0] / "runs").glob("2*_one"))
    (run / broken).write_text("{")
    assert runs(home, "gc", "--yes") == 2
    assert broken in capsys.readouterr().err and len(there(home)) == 5
    assert runs(home, "ls") == 0  # a list is there all the same


def test_a_wrong_folder_of_runs_removes_nothing(home, tmp_path, capsys):
    (home[1].root / "used_by.txt").unlink()  # a store from before it was written down
    (tmp_path / "empty").mkdir()
    words = ["gc", "--yes", "--store", str(home[1].root), "--runs"]
    assert (
        main([*words, str(tmp_path / "empty")]) == 2 and "holds no run" in capsys.readouterr().err
    )
    assert main([*words, str(tmp_path / "none")]) == 2 and len(there(home)) == 5
    assert main(
        ["gc", "--yes", "--store", str(tmp_path / "outside"), "--runs", str(home[0] / "runs")]
    )
    assert (tmp_path / "outside/deep/kept").exists()


def test_links_are_never_followed(home, tmp_path, capsys):
    loose = home[1].path("samples", home[2]["loose"])
    (loose / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    (home[1].root / "scores").symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "outside" / ("c" * 20)).mkdir()
    (loose.parent / ("d" * 20)).symlink_to(tmp_path / "outside", target_is_directory=True)
    assert runs(home, "gc", "--yes") == 0
    assert not loose.exists() and (tmp_path / "outside/deep/kept").read_text() == "kept"
    assert (tmp_path / "outside" / ("c" * 20)).is_dir() and (loose.parent / ("d" * 20)).is_symlink()
    assert "scores: is a link and is left alone" in capsys.readouterr().out


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("seed", range(12))
def test_killed_anywhere_it_has_harmed_nothing_and_goes_on(home, tmp_path, monkeypatch, seed):
    """At a random one of the system calls that remove or rename."""
    kept = [home[1].path(n, home[2][n]) for n in ("samples", "answers", "pairs")]
    before = [snapshot(path) for path in kept]
    left = random.Random(seed).randrange(14)

    def fragile(real):
        def call(*args, **more):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(*args, **more)

        return call

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir", "rename"):
            patch.setattr(os, name, fragile(getattr(os, name)))
        code = runs(home, "gc", "--yes")
    assert code == (130 if left < 0 else 0)
    assert [snapshot(path) for path in kept] == before
    assert not verify_store(home[1]).faults, "a half removed artifact looks whole"
    assert runs(home, "gc", "--yes") == 0
    assert there(home) == {"samples", "answers", "pairs"}
    assert not list(home[1].root.glob("*/*.removed")) and snapshot(tmp_path / "outside")


def test_rm_removes_the_folder_alone_and_latest_leads_to_the_next(home, tmp_path, capsys):
    two = done(tmp_path / "runs", home[1], "two", [("answers.flip", home[2]["unread"])])
    (two / "mine").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert runs(home, "rm", "runs/latest") == 2  # not from here
    assert runs(home, "rm", "latest") == 0 and two.exists()
    assert runs(home, "rm", "latest", "--yes") == 0
    assert not two.exists() and (tmp_path / "outside/deep/kept").exists()
    assert (tmp_path / "runs/latest").resolve().name.endswith("_one") and len(there(home)) == 5
    assert runs(home, "gc", "--yes") == 0 and "unread" not in there(home)
    assert runs(home, "rm", "one", "--yes") == 0
    assert not os.path.lexists(tmp_path / "runs/latest")


def test_rm_refuses_what_works_and_what_lies_elsewhere(home, tmp_path, capsys):
    folder, _ = begun(tmp_path / "runs", home[1], "busy", [])
    assert runs(home, "rm", "busy", "--yes") == 2 and "at work" in capsys.readouterr().err
    other = done(tmp_path / "elsewhere", home[1], "two", [])
    (tmp_path / "runs" / "trick").symlink_to(other, target_is_directory=True)
    for said in (str(other), "trick"):
        assert runs(home, "rm", said, "--yes") == 2
        assert "lies outside" in capsys.readouterr().err and other.exists()
    assert runs(home, "rm", str(tmp_path / "outside"), "--yes") == 2
    assert folder.path.exists() and (tmp_path / "outside").exists()


def test_a_killed_removal_of_a_run_is_no_run_and_gc_ends_it(home, tmp_path, monkeypatch):
    two = done(tmp_path / "runs", home[1], "two", [])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        assert runs(home, "rm", "two", "--yes") == 130
    assert not two.exists() and len(list((tmp_path / "runs").glob(".removed-*"))) == 1
    assert runs(home, "show", "two") == 2
    assert runs(home, "gc", "--yes") == 0 and not list((tmp_path / "runs").glob(".removed-*"))
