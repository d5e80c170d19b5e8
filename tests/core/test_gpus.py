"""Jobs side by side on a machine with GPUs: each gets its own, and is told if not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from seva_exp.command.job import Job
from seva_exp.command.sweep import Sweep
from seva_exp.core import gpus


@pytest.mark.parametrize(
    ("told", "found"),
    [("0,1", ["0", "1"]), (" 3 , 1", ["3", "1"]), ("", []), ("-1", []), ("1,-1,0", ["1"]),
     ("GPU-8932f937-d72c,MIG-1f2a", ["GPU-8932f937-d72c", "MIG-1f2a"])],
)  # fmt: skip
def test_what_a_process_sees(told, found):
    assert gpus.seen({"CUDA_VISIBLE_DEVICES": told}) == found


def test_without_the_variable_the_driver_is_asked(monkeypatch):
    monkeypatch.setattr(gpus, "_count", lambda: 2)
    environment: dict[str, str] = {}
    gpus.offer(environment)
    assert gpus.offered(environment) == ["0", "1"]
    assert gpus.offered(environment | {"CUDA_VISIBLE_DEVICES": ""}) == ["0", "1"]  # submitit, Ray
    assert gpus.offered(environment | {"SUBMITIT_EXECUTOR": "slurm"}) == []
    monkeypatch.setattr(gpus, "_count", lambda: 0)
    gpus.offer(environment)
    assert gpus.offered(environment) == []


def test_a_machine_without_a_driver_has_none(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(gpus.ctypes, "CDLL", missing)
    assert gpus._count() == 0


@pytest.mark.parametrize(
    ("machine", "count"),
    [({"device": "auto", "processes": 1}, 1), ({"device": "cuda", "processes": 4}, 4),
     ({"device": "cpu", "processes": 4}, 0), ({"device": "cuda:1", "processes": 1}, 0), ({}, 0)],
)  # fmt: skip
def test_how_many_a_job_takes(machine, count):
    assert gpus.wanted(machine) == count


def taken(stack: ExitStack, folder: Path, number: int, there: list[str], count: int) -> gpus.Taken:
    return stack.enter_context(gpus.take(folder, number, there, count))


def test_each_takes_one_that_no_other_has_and_gives_it_back(tmp_path):
    there = ["0", "GPU-a/b"]
    with ExitStack() as first, ExitStack() as second:
        assert taken(first, tmp_path, 0, there, 1).gpus == ("0",)
        assert taken(second, tmp_path, 1, there, 1) == gpus.Taken(("GPU-a/b",))
        with gpus.take(tmp_path, 3, there, 1) as third:
            assert third == gpus.Taken(("GPU-a/b",), shared=True)  # number 3 of 2
            assert re.search(r"\(of 2\).* GPU GPU-a/b.*hydra\.launcher\.n_jobs", third.note(2))
        first.close()
        with gpus.take(tmp_path, 4, there, 1) as fourth:
            assert fourth == gpus.Taken(("0",)) and not fourth.note(2)


def test_several_for_one_job(tmp_path):
    there = ["0", "1", "2"]
    with gpus.take(tmp_path, 0, there, 2) as first:
        assert first.gpus == ("0", "1")
        with gpus.take(tmp_path, 1, there, 2) as second:
            assert second == gpus.Taken(("2", "0"), shared=True)
        with gpus.take(tmp_path, 1, there, 1) as alone:
            assert alone.gpus == ("2",)  # what the second had begun to take is free again
    with gpus.take(tmp_path, 0, there, 4) as too_many:
        assert too_many == gpus.Taken(("0", "1", "2"))  # the job itself refuses them


HOLD = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from seva_exp.core import gpus
with gpus.take(Path(sys.argv[1]), 0, ["0", "1", "2", "3"], 2) as taken:
    print(*taken.gpus, taken.shared, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_had_is_free(tmp_path):
    """Two at once, each of which needs two of four, get them; kill -9 gives them back."""
    both = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        said = sorted(process.stdout.readline().decode().strip() for process in both)
        assert said == ["0 1 False", "2 3 False"]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    with gpus.take(tmp_path, 0, ["0", "1", "2", "3"], 4) as taken:
        assert taken == gpus.Taken(("0", "1", "2", "3"))


def test_two_that_take_at_once_do_not_halve_what_is_enough_for_one(tmp_path, monkeypatch):
    """The other begins when the first has one of the two, and would hold on to what it finds."""
    others: list[gpus.Taken] = []

    def other() -> None:
        with gpus.take(tmp_path, 1, ["0", "1"], 2) as taken:
            others.append(taken)

    started = threading.Thread(target=other)
    free = gpus._free

    def slow(folder, name):
        found = free(folder, name)
        if threading.current_thread() is started:
            time.sleep(0.4 if found else 0)
        elif not started.ident:
            started.start()
            time.sleep(0.2)
        return found

    monkeypatch.setattr(gpus, "_free", slow)
    with gpus.take(tmp_path, 0, ["0", "1"], 2) as taken:
        started.join()
    assert (taken.shared, [one.shared for one in others]) == (False, [True])


def test_all_sweeps_of_a_user_look_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert gpus.leases() == gpus.leases()
    assert gpus.leases().parent == tmp_path and gpus.leases().stat().st_mode & 0o777 == 0o700


def test_the_job_s_process_sees_its_own(tmp_path, monkeypatch):
    """Through the sweep, as a launcher's process does it; the job's program tells what it sees."""
    program = (
        "import os, sys, json, pathlib; json.loads(sys.stdin.readline()); "
        "pathlib.Path(sys.argv[-1]).write_text(json.dumps("
        "{'message': os.environ.get('CUDA_VISIBLE_DEVICES', 'none'), 'run': '.'}))"
    )
    shell = tmp_path / "python"
    shell.write_text(f"#!{sys.executable}\n{program.replace('; ', chr(10))}\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    monkeypatch.setenv(gpus.OFFERED, "4,5")
    monkeypatch.setattr(gpus, "leases", lambda: leases)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    warned: list[str] = []
    sweep, leases = Sweep(tmp_path / "sweep", print, warned.append), tmp_path
    machine = {"device": "auto", "processes": 1}

    def saw(number: int, **changes) -> str:
        job = Job({"machine": machine | changes}, (f"seed={number}",), ())
        sweep.do(number, job, str(tmp_path))
        return sweep.records()[number].ended.message

    assert saw(0) == "4"
    with gpus.take(leases, 0, ["4"], 1):  # by another sweep
        assert saw(1) == "5"
        with gpus.take(leases, 0, ["5"], 1):
            assert saw(2) == "4"
    # Submitit and Ray hid all: the job must find what it names, or tell that it is not there.
    assert saw(3, device="cuda:1") == saw(4, processes=3) == "4,5"
    sweep.conclude()
    [said] = warned
    assert said.startswith("[seed=2] more jobs at once than GPUs")
    assert [bool(record.note) for record in sweep.records()] == [False, False, True, False, False]
    assert (
        json.loads((tmp_path / "sweep" / "jobs" / "2.json").read_text())["note"]
        and os.environ[gpus.OFFERED] == "4,5"
    )
    monkeypatch.setenv(gpus.OFFERED, "")
    monkeypatch.setattr(gpus, "leases", lambda: pytest.fail("there is nothing to take"))
    assert saw(5) == ""
