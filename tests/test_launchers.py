"""Launchers: jobs of one sweep at once, in processes of their own. Each is really run where its
extra is installed (slow)."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seva_exp.compare.comparison import Comparison
from seva_exp.compare.runs import ComparedRun
from seva_exp.compare.tables import markdown
from seva_exp.core.paths import config_dir

from .test_plugins import FILES

LAUNCHERS = {
    "local_joblib": "hydra_plugins.hydra_joblib_launcher",
    "local_submitit": "hydra_plugins.hydra_submitit_launcher",
    "local_ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}
"""Each with the plugin that brings it."""
HERE = ("local_joblib", "local_submitit", "local_ray")
SWEEP = [
    "-m", "+aug=moco", "dpo.beta=0.05,0.2", "seed=0,1", "data.samples=40",
    "benchmark.shapes.images=10", "tracker=none", "dpo.warmup_ratio=0",
]  # fmt: skip


@pytest.fixture
def name(request) -> str:
    """A launcher whose plugin is installed."""
    plugin = LAUNCHERS[request.param]
    if not importlib.util.find_spec("hydra_plugins") or not importlib.util.find_spec(plugin):
        pytest.skip(f"{plugin} is not installed")
    return request.param


def finished(folder: Path) -> list[Path]:
    """The runs in the order of the jobs."""
    [jobs] = (folder / "runs" / "multirun").glob("*/jobs")
    rows = [json.loads(file.read_text()) for file in jobs.glob("*.json")]
    assert {row["state"] for row in rows} == {"done"}
    return [Path(row["ended"]["run"]) for row in sorted(rows, key=lambda row: row["number"])]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> str:
    """The table of the sweep without a launcher."""
    folder = tmp_path_factory.mktemp("basic")
    command = [sys.executable, "-m", "seva_exp", *SWEEP]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return markdown(Comparison.of([ComparedRun.read(run) for run in finished(folder)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE, indirect=True)
def test_at_once_it_is_the_same_table_and_each_stage_is_computed_once(
    cli, tmp_path, name, expected
):
    free = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = cli(*SWEEP, f"hydra/launcher={name}", timeout=600, env=free)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sweep: 4 done" in done.stdout
    runs = finished(tmp_path)
    assert markdown(Comparison.of([ComparedRun.read(run) for run in runs])) == expected
    reports = [json.loads((run / "report.json").read_text()) for run in runs]
    stages = [stage for report in reports for stage in report["stages"]]
    computed = Counter(stage["key"] for stage in stages if not stage["cached"])
    assert computed == dict.fromkeys({stage["key"] for stage in stages}, 1)
    manifests = (tmp_path / "runs/store/align").glob("*/manifest.json")
    threads = {json.loads(file.read_text())["environment"]["threads"] for file in manifests}
    assert max(threads) <= max(1, (os.cpu_count() or 2) // 2), "two jobs share the cores"


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE, indirect=True)
def test_a_job_that_fails_elsewhere_is_told_here(cli, tmp_path, name):
    words = ["-m", "+aug=moco", "dpo.beta=-1,0.1", "stop_after=samples", "tracker=none"]
    done = cli(*words, f"hydra/launcher={name}", timeout=600)
    assert done.returncode == 2
    assert re.search(r"^seva_exp: \[\+aug=moco dpo.beta=-1 ", done.stderr, re.MULTILINE)
    assert "sweep: 1 failed, 1 done" in done.stdout


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for leases and sockets; a socket's name may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="g", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE, indirect=True)
def test_no_two_jobs_at_once_see_the_same_gpu(tmp_path, short, name):
    """Of a machine that says it has two: what each job's process sees while it lives."""
    words = [
        "-m",
        "+aug=moco",
        "seed=0,1,2",
        "data.samples=40",
        "stop_after=answers",
        "tracker=none",
    ]
    with (tmp_path / "said.log").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "seva_exp", *words, f"hydra/launcher={name}"],
            cwd=tmp_path,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(short)},
            stdout=said,
            stderr=said,
        )
    seen: set[str] = set()
    together: set[int] = set()
    while process.poll() is None:
        now = jobs_of(tmp_path)
        assert len(now) == len({gpu for _, gpu in now}), f"two jobs at once see a GPU: {now}"
        seen |= {gpu for _, gpu in now}
        together.add(len(now))
        time.sleep(0.05)
    assert process.returncode == 0, (tmp_path / "said.log").read_text()
    assert "shares GPU" not in (tmp_path / "said.log").read_text()
    assert seen == {"0", "1"} and 2 in together


def jobs_of(folder: Path) -> list[tuple[int, str]]:
    """The processes of a sweep's jobs in this folder and what each sees, of those that live at one
    moment: while some are looked at, others end and more begin, or become what they start."""
    seen = [(one, visible) for one in psutil.process_iter() if (visible := seen_by(one, folder))]
    return [(one.pid, visible) for one, visible in seen if seen_by(one, folder) == visible]


def seen_by(process: psutil.Process, folder: Path) -> str:
    """What a job's process sees; nothing where it is another."""
    try:
        job = process.cmdline()[2:3] == ["seva_exp.command.job"] and process.cwd() == str(folder)
        forked = job and "seva_exp.command.job" in process.parent().cmdline()
        return process.environ()["CUDA_VISIBLE_DEVICES"] if job and not forked else ""
    except psutil.Error:  # it has just ended
        return ""


def composed(name: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose(
            "config", ["+aug=moco", f"hydra/launcher={name}"], return_hydra_config=True
        )
    # Only a running job knows its number and folder.
    OmegaConf.update(config, "hydra.sweep.dir", "sweep")
    return OmegaConf.to_container(config.hydra.launcher, resolve=True) | {
        "threads": OmegaConf.to_container(config.hydra.job.env_set, resolve=True)
    }


@pytest.mark.parametrize("name", LAUNCHERS, indirect=True)
def test_a_launcher_s_config_composes_and_names_its_plugin(name):
    found = composed(name)
    module, _, _ = found["_target_"].rpartition(".")
    assert module.startswith(LAUNCHERS[name])
    if "submitit" in module:
        assert found["threads"]["OMP_NUM_THREADS"] == str(found["cpus_per_task"])


@pytest.mark.parametrize("name", ["slurm"], indirect=True)
def test_the_batch_file_for_slurm_asks_for_what_the_config_says(tmp_path, monkeypatch, name):
    import submitit
    from submitit.slurm import slurm

    for tool in ("srun", "sbatch"):  # it looks for them before it writes the file
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    given = composed(name)
    executor = submitit.AutoExecutor(
        folder=tmp_path / "%j", cluster="slurm", slurm_max_num_timeout=given["max_num_timeout"]
    )
    shared = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes")
    own = ("signal_delay_s", "array_parallelism", "partition", "setup", "additional_parameters")
    executor.update_parameters(
        name=given["name"],
        stderr_to_stdout=given["stderr_to_stdout"],
        **{name: given[name] for name in shared},
        **{f"slurm_{name}": given[name] for name in own},
    )
    assert isinstance(executor._executor, slurm.SlurmExecutor)
    text = executor._executor._make_submission_file_text("run", "0")
    lines = {line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH" in line}
    assert lines >= {
        "cpus-per-task=8", "gpus-per-node=1", "mem=64GB", "time=1440", "job-name=seva_exp",
        "nodes=1", "signal=USR2@120",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE, indirect=True)
def test_a_module_of_the_working_folder_is_known_in_every_job(cli, tmp_path, name):
    (tmp_path / "my_views.py").write_text(FILES["my_views.py"], encoding="utf-8")
    words = ["-m", "plugins=[my_views]", "+aug=posterize_twice,in_a_hurry", "data.samples=12"]
    words += ["stop_after=pairs", "tracker=none", "machine.device=cpu"]
    done = cli(*words, f"hydra/launcher={name}", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sweep: 2 done" in done.stdout
    made = {path.name for run in finished(tmp_path) for path in run.glob("answers.*")}
    assert made == {"answers.clean", "answers.posterize_twice", "answers.in_a_hurry"}
