"""After runs with trackers, a server and a judge no planted secret is on disk or was told."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from seva_exp.benchmarks.samples import make_samples

from .benchmarks.judges import judge
from .served.serving import Misbehaving, status

PLANTED = {
    "OPENAI_API_KEY": "planted-openai-1",
    "SERVER_KEY": "planted-server-2",
    "JUDGE_KEY": "planted-judge-3",
    "HF_TOKEN": "planted-hf-4",
    "WANDB_API_KEY": "planted" + "5" * 33,
    "AWS_SECRET_ACCESS_KEY": "planted-aws-6",
    "GITHUB_TOKEN": "planted-github-7",
    "SOMETHING": "planted-unnamed-8",
    "https_proxy": "http://me:planted-proxy-9@127.0.0.1:9",
    "WANDB_BASE_URL": "http://me:planted-wandb-10@127.0.0.1:9",
    "DB_PASSWORD": "planted-password-11",
}


def leaks(folder: Path, *said: str) -> list[str]:
    """Where something planted is: in files (SQLite's, W&B's), their names, what was said."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    found = [str(file) for file in files if b"planted" in file.read_bytes()]
    return found + [text for text in (*said, *map(str, files)) if "planted" in text]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, **PLANTED, "TRACKIO_DIR": str(folder / "trackio"), "HOME": str(folder)}


@pytest.mark.parametrize("tracker", ["wandb", "trackio", "none"])
def test_a_served_run_leaves_no_secret(cli, tmp_path, tracker):
    if tracker == "trackio" and find_spec("trackio") is None:
        pytest.skip("pip install 'seva_exp[trackio]'")
    with Misbehaving(models=["m"]) as server:
        words = ["+aug=low_resolution", "generation=server", f"machine.server.url={server.url}"]
        words += ["machine.server.api_key_env=SERVER_KEY", f"tracker={tracker}", "data.samples=4"]
        done = cli(*words, "stop_after=pairs", env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert leaks(tmp_path, done.stdout, done.stderr) == []


@pytest.mark.parametrize("several", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
@pytest.mark.parametrize(("first", "code"), [(0, 2), (3, 1)], ids=["the check", "a question"])
def test_a_server_that_repeats_the_key_is_not_repeated(cli, tmp_path, several, first, code):
    refusing = status(403, f"the key {PLANTED['SERVER_KEY']} may not")
    with Misbehaving(models=["m"], faults=dict.fromkeys(range(first, 99), refusing)) as server:
        words = ["+aug=low_resolution", "generation=server", f"machine.server.url={server.url}"]
        words += ["machine.server.api_key_env=SERVER_KEY", "tracker=none", "data.samples=8"]
        words += ["machine.server.concurrency=1", "stop_after=pairs"]
        done = cli(*words, *several, env=environment(tmp_path))
    assert done.returncode == code and "the key *** may not" in done.stderr
    assert leaks(tmp_path, done.stdout, done.stderr) == []


@pytest.mark.slow
def test_a_judged_run_leaves_no_secret(cli, tmp_path):
    make_samples(tmp_path / "data")
    with judge() as server:
        words = ["+aug=moco", "benchmark=mmvet", "data_root=data", "judge=server"]
        words += [f"machine.judge.url={server.url}", "machine.judge.api_key_env=JUDGE_KEY"]
        done = cli(*words, "stop_after=judge.base", "data.samples=2", env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert leaks(tmp_path, done.stdout, done.stderr) == []


def test_what_is_looked_for_is_found(tmp_path):
    (tmp_path / "a").write_bytes(b"\x00planted-openai-1\x00")
    assert leaks(tmp_path, "a planted word") == [str(tmp_path / "a"), "a planted word"]
