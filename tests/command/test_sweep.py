"""A sweep: its dry run, its faults, going on after a kill; each shared stage computed once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seva_exp.command.job import DONE, FAILED, Ended, Job, worst
from seva_exp.command.sweep import Sweep
from seva_exp.core.paths import config_dir

from ..forking import Ends
from ..slow import slow_but

SMALL = ["data.samples=40", "benchmark.shapes.images=10", "tracker=none", "dpo.warmup_ratio=0"]


def made(folder: Path) -> Counter[str]:
    """Key -> how many of the runs computed this stage."""
    reports = [json.loads(f.read_text()) for f in (folder / "runs").glob("2*/report.json")]
    rows = [stage for report in reports for stage in report["stages"]]
    assert all((folder / "runs/store" / r["name"].split(".")[0]).is_dir() for r in rows[:1])
    return Counter({r["key"]: 0 for r in rows}) + Counter(r["key"] for r in rows if not r["cached"])


@pytest.mark.parametrize(
    "codes, code",
    [([0, 0], 0), ([0, 3], 3), ([3, 2], 2), ([1, 3, 0], 1), ([3, 130], 130)],
)
def test_a_result_that_is_none_weighs_less_than_a_failure(codes, code):
    assert worst(codes) == code


def test_a_dry_run_is_one_table_and_leaves_nothing_behind(cli, tmp_path):
    words = ["-m", "+aug=moco", "dpo.beta=0.1,0.2,-1", "hydra/launcher=nosuch"]
    done = cli(*words, "dry_run=true", env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 2, "of one job"
    assert "[+aug=moco dpo.beta=-1" in done.stderr
    assert "2 runs; of 18 stages 12 are needed after sharing, 0 cached, 12 to do" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("  beta=")]
    assert [row[:5] for row in rows] == [
        ["beta=0.1", "9", "0", "0", "9"],
        ["beta=0.2", "9", "6", "0", "3"],
    ]
    assert "plan:" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_counts_what_is_there_and_estimates_by_it(cli, tmp_path):
    few = ["data.samples=16", "tracker=none"]
    assert cli("+aug=moco", "stop_after=pairs", *few).returncode == 0
    done = cli("-m", "+aug=moco,gaussian_blur", "stop_after=pairs", *few, "dry_run=true")
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if "+aug=" in line}
    assert rows["+aug=moco"][1:6] == ["4", "0", "4", "0", "-"]
    assert rows["+aug=gaussian_blur"][1:5] == ["4", "2", "0", "2"]
    assert rows["+aug=gaussian_blur"][6] == "s", "from the other view's answers and pairs"
    assert rows["+aug=gaussian_blur"][-1] == "KiB"
    assert len(list((tmp_path / "runs").glob("2*"))) == 1


def test_a_dry_run_refuses_what_every_run_would(cli):
    done = cli("-m", "+aug=moco", "seed=0,1", "objective=pairs/kept_shar", "dry_run=true")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "and 1 more: " in line and "Did you mean 'pairs/kept_share'?" in line
    assert done.stdout == "", "no table of nothing"


def test_a_failed_job_is_told_at_once_and_again_and_others_go_on(cli, tmp_path):
    done = cli("-m", "+aug=moco", "dpo.beta=-1,0.1", "stop_after=samples", *SMALL)
    assert done.returncode == 2
    assert done.stderr.startswith("seva_exp: [+aug=moco dpo.beta=-1 ")
    assert "sweep: 1 failed, 1 done" in done.stdout
    assert "failed [+aug=moco dpo.beta=-1 " in done.stdout.split("sweep: ")[1]
    (page,) = (tmp_path / "runs" / "multirun").glob("*/compare.html")
    assert f"comparison: {page.relative_to(tmp_path)}" in done.stdout
    assert "1 run is left out" in page.read_text() and "dpo.beta=-1 " in page.read_text()


def test_no_secret_of_a_command_line_is_left_in_a_sweep_s_folder(cli, tmp_path):
    address = "machine.server.url=http://127.0.0.1:9/v1,http://me:hunter2@127.0.0.1:9/v1"
    secret = "+hydra.job.env_set.OPENAI_API_KEY=sk-hunter2"
    done = cli("-m", "+aug=moco", address, secret, "stop_after=samples", *SMALL)
    assert "sweep: 1 done, 1 failed" in done.stdout
    assert "http\\://***@127" in done.stderr, "the job is told all the same"
    assert "hunter2" not in done.stdout + done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [file for file in files if b"hunter2" in file.read_bytes()] == []
    (written,) = tmp_path.rglob("multirun.yaml")
    assert "machine.server.url" in written.read_text()


def test_a_failed_stage_counts_more_than_a_bad_value(cli):
    objective = "objective=reference/margin"  # these runs will have none
    done = cli("-m", "+aug=moco", "dpo.beta=0.1,-1", objective, "stop_after=samples", *SMALL)
    assert "sweep: 2 failed" in done.stdout
    assert done.returncode == 1, (
        "2 is for a command that has nothing but bad input (docs/sweeps.md)"
    )


def test_bad_input_of_any_job_is_told_before_the_first_begins(cli):
    words = ["-m", "+aug=moco", "dpo.beta=0.1,-1,-2", "stop_after=samples", *SMALL]
    done = cli(*words, capture_output=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 2
    before, _, after = done.stdout.partition("plan: 1 stages")
    for beta in ("-1", "-2"):
        assert f"dpo.beta={beta}: input should be greater than 0" in before
    assert "sweep: 1 done, 2 failed" in after


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dpo.beta=0.1,-1", "sweep.on_error=stop"], "dpo.beta=-1"),
        (["data=folder", "data.path=/nope", "dpo.beta=0.1,0.2"], "=0.1] and 1 more: data.path: "),
        (["data=folder", "dpo.beta=0.1,0.2"], "=0.1] and 1 more: data.path: must be set"),
        (["data=folder", "data.path=/no/${hydra:job.num}", "seed=0"], "path: there is no folder"),
        (["stop_after=nosuch", "seed=0,1"], "seed=0] and 1 more: stop_after=nosuch: no such"),
        (["force=[nosuch]", "seed=0,1"], "seed=0] and 1 more: force=nosuch: no such stage"),
        (["+hydra.job.env_set.SEVA_EXP_DATA=/nope", "seed=0,1"], "$SEVA_EXP_DATA: there is no"),
    ],
)
def test_where_no_job_may_go_on_nothing_is_begun(cli, tmp_path, words, told):
    done = cli("-m", "+aug=moco", "stop_after=samples", *words)
    assert done.returncode == 2
    line, *names = done.stderr.splitlines()
    assert told in line
    assert all(name.startswith("  ") for name in names), "one mistake, names below it"
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_before_the_first_job_is_no_warning(cli, tmp_path):
    far = ["model=llava15_7b", f"model.path='{'文' * 300}'"]  # no file's name is so long
    done = cli("-m", "+aug=moco", *far, "seed=0,1")
    assert done.returncode == 1
    assert "UserWarning" not in done.stderr and "OSError: [Errno 36]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_search_path_with_an_equals_sign_is_no_override(cli, tmp_path):
    (tmp_path / "mine=1").mkdir()
    done = cli(
        "-cd", f"{tmp_path}/mine=1", "-m", "+aug=moco", "seed=0,1", "stop_after=samples", *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert "sweep: 2 done" in done.stdout
    assert len(list((tmp_path / "runs").glob("2*_moco_seed=[01]"))) == 2


def test_a_folder_for_runs_that_cannot_be_is_told_in_one_line(cli, tmp_path):
    (tmp_path / "file").touch()
    done = cli("-m", "+aug=moco", "dpo.beta=0.1,0.2", f"machine.runs={tmp_path}/file/runs")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert f"{tmp_path}/file/runs" in line and "cannot be written (Not a directory)" in line


def test_a_list_is_one_value_and_names_no_run(cli, tmp_path):
    words = ["+aug=moco", "dpo.beta=0.1,0.2", "filters=[equal,empty]", "stop_after=samples"]
    done = cli("-m", *words, *SMALL)
    assert done.returncode == 0, done.stderr
    names = {run.name.split("_", 2)[2] for run in (tmp_path / "runs").glob("2*")}
    assert names == {"moco_beta=0.1", "moco_beta=0.2"}


def test_with_on_error_stop_no_job_is_begun_after_a_failed_one(cli, tmp_path):
    few = ["data=folder", f"data.path={tmp_path}/pictures", "sweep.on_error=stop"]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"no picture")
    done = cli("-m", "+aug=moco", "dpo.beta=0.1,0.2,0.3", "stop_after=answers.clean", *few)
    assert done.returncode == 2
    assert "sweep: 1 failed, 2 left out" in done.stdout


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_sweep_that_is_interrupted_goes_on_with_what_is_missing(cli, tmp_path, number):
    words = ["-m", "+aug=moco", "seed=0,1", "stop_after=answers.clean", "data.samples=16"]
    words.append("tracker=none")
    first = cli(*words, ends=Ends("*/answers/*/journal-0.jsonl", 2, number))
    assert first.returncode == 130
    assert "sweep: 1 done, 1 not ended" in first.stdout
    done = cli(*words)
    assert done.returncode == 0
    assert "sweep: 2 done" in done.stdout
    assert "2 stages, 0 to do, 2 cached" in done.stdout
    assert max(made(tmp_path).values()) == 1


def begun_since(before: list[psutil.Process]) -> list[psutil.Process]:
    """This process's children that were not there ``before`` (another test's W&B may be)."""
    return [child for child in psutil.Process().children() if child not in before]


def job(tmp_path: Path, *words: str) -> Job:
    """As the command line makes it."""
    overrides = ["+aug=moco", *words, *SMALL, f"machine.runs={tmp_path}/runs"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", overrides)
    return Job(OmegaConf.to_container(config, resolve=True), tuple(overrides), ())


def test_a_job_in_a_process_of_its_own_tells_in_a_log_what_it_does(tmp_path):
    said: list[str] = []
    before = psutil.Process().children()
    sweep = Sweep(tmp_path / "sweep", said.append, said.append)
    sweep.do(3, job(tmp_path, "stop_after=samples"), cwd=str(tmp_path))
    [record] = sweep.records()
    assert (record.number, record.state, record.ended.code) == (3, "done", DONE)
    assert "plan: 1 stages" in (tmp_path / "sweep/jobs/3.log").read_text()
    assert [run.parent for run in sweep.runs] == [tmp_path / "runs"]
    assert begun_since(before) == []
    assert sweep.conclude() == DONE
    assert said[0].startswith("job 3:")


def test_a_job_whose_process_dies_has_failed(tmp_path):
    said: list[str] = []
    sweep = Sweep(tmp_path / "sweep", said.append, said.append)
    long = job(tmp_path, "data.samples=100000", "stop_after=samples")
    before = psutil.Process().children()
    doing = threading.Thread(target=sweep.do, args=(0, long, str(tmp_path)))
    doing.start()
    while not (children := begun_since(before)):
        assert doing.is_alive()
        time.sleep(0.05)
    children[0].kill()
    doing.join()
    [record] = sweep.records()
    assert record.state == "failed"
    assert "its process died (SIGKILL)" in record.ended.message
    assert sweep.conclude() == FAILED


DEATHS = {
    "os._exit": ("os._exit(7)", "exit code 7"),
    "signal": ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "abort": ("os.abort()", "SIGABRT"),
    "memory": ("bytearray(1 << 60)", "samples: out of memory"),
}


@pytest.mark.parametrize("death", slow_but(["os._exit", "killed", "memory"], of=DEATHS))
def test_a_job_that_dies_is_told_at_once_and_the_others_are_kept(tmp_path, monkeypatch, death):
    """It dies while its stage works: where the samples' file is opened."""
    does, told = DEATHS[death]
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def hook(event, args):\n"
        "    if event == 'open' and 'samples.jsonl' in str(args[0]) and os.environ.get('DIE'):\n"
        f"        {does}\n"
        "sys.addaudithook(hook)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    said: list[str] = []
    sweep = Sweep(tmp_path / "sweep", lambda text: None, said.append)
    sweep.watch()
    monkeypatch.setenv("DIE", "1")
    sweep.do(0, job(tmp_path, "stop_after=samples", "seed=1"), cwd=str(tmp_path))
    deadline = time.monotonic() + 120
    while not said and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(said) == 1 and told in said[0], "at once"
    monkeypatch.delenv("DIE")
    sweep.do(1, job(tmp_path, "stop_after=samples", "seed=2"), cwd=str(tmp_path))
    assert [record.state for record in sweep.records()] == ["failed", "done"]
    assert sweep.conclude() == FAILED and len(sweep.runs) == 1


def test_a_job_that_never_ended_makes_the_exit_code_1(tmp_path, monkeypatch):
    """Its scheduler killed it: all that it left is that it was begun."""
    done = Ended(run=str(tmp_path))
    said: list[str] = []
    monkeypatch.setattr("seva_exp.command.sweep.work_or_tell", lambda *job: done)
    sweep = Sweep(tmp_path / "sweep", said.append, said.append)
    for number in (0, 1):
        sweep.do(number, Job({}, (f"seed={number}",)))
    assert sweep.conclude() == DONE
    record = tmp_path / "sweep/jobs/1.json"
    row = json.loads(record.read_text()) | {"state": "running", "ended": vars(Ended())}
    record.write_text(json.dumps(row))
    assert sweep.conclude() == FAILED
    assert "sweep: 1 done, 1 not ended" in said[-2] and said[-1] == "  not ended [seed=1]"
    assert [one.state for one in sweep.records()] == ["done", "stopped"]
    with FileLock(tmp_path / "sweep/jobs/1.lock"):
        assert sweep.records()[1].state == "running"


def test_where_all_jobs_are_started_at_once_so_many_work_as_are_let(tmp_path, monkeypatch):
    monkeypatch.setenv("SEVA_EXP_JOBS_AT_ONCE", "1")
    sweep = Sweep(tmp_path / "sweep", lambda text: None, lambda text: None)
    wrong = job(tmp_path, "dpo.beta=-1", "sweep.on_error=stop")
    places = [threading.Thread(target=sweep.do, args=(n, wrong, str(tmp_path))) for n in range(3)]
    for place in places:
        place.start()
    for place in places:
        place.join()
    states = sorted(record.state for record in sweep.records())
    assert states == ["failed", "left out", "left out"], (
        "the second began after the first had ended"
    )


def test_a_sweep_forgets_what_an_earlier_one_left_in_its_folder(tmp_path, monkeypatch):
    """``hydra.sweep.dir=out`` a second time: the first one's failed job stops nothing now."""
    told: list[str] = []
    monkeypatch.setattr("seva_exp.command.sweep.work_or_tell", lambda *job: ended.pop())
    for codes in ([FAILED, DONE, DONE], [DONE]):
        ended = [Ended(code) for code in reversed(codes)]
        sweep = Sweep(tmp_path, told.append, told.append)
        sweep.watch()
        for number in range(len(codes)):
            sweep.do(number, Job({"sweep": {"on_error": "stop"}}, (f"seed={number}",)))
        code = sweep.conclude()
        assert code == max(codes)
        (tmp_path / "optimization_results.yaml").write_text("best_value: of the first sweep")
    ends = [line for line in told if "sweep: " in line]
    assert "sweep: 1 failed, 2 left out" in ends[0] and "sweep: 1 done" in ends[-1]


def test_a_job_ends_with_the_process_that_waits_for_it(tmp_path):
    """So that a cancelled cluster job leaves nothing running."""
    code = (
        "import json, sys; from seva_exp.command.job import Job\n"
        "from seva_exp.command.sweep import Sweep\n"
        "row = json.loads(sys.argv[1])\n"
        "job = Job(row['values'], (), ())\n"
        f"Sweep(__import__('pathlib').Path({str(tmp_path)!r}), print, print).do(0, job, '.')"
    )
    values = job(tmp_path, "data.samples=100000", "stop_after=samples").values
    parent = subprocess.Popen([sys.executable, "-c", code, json.dumps({"values": values})])
    while not (children := psutil.Process(parent.pid).children()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=120)
    assert gone and not alive


def test_a_sweep_tells_which_of_how_many_it_does_and_the_time_that_is_left(tmp_path, monkeypatch):
    said: list[str] = []
    done = Ended(run=str(tmp_path))
    monkeypatch.setattr("seva_exp.command.sweep.work_or_tell", lambda *job: done)
    now = iter(range(0, 10_000, 60))
    monkeypatch.setattr("seva_exp.command.sweep.time.monotonic", lambda: float(next(now)))
    sweep = Sweep(tmp_path, said.append, said.append, 12)
    for number in range(3):
        sweep.do(number, Job({}, (f"seed={number}",)))
    assert said[0] == "[1/12] seed=0", "nothing has ended by which time could be told"
    assert said[1].startswith("[2/12] seed=1  (about ") and said[1].endswith(" min left)"), said
    assert said[2].startswith("[3/12] seed=2  (about ")
