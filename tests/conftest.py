"""Shared helpers: a small experiment, a command line in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .forking import Commands

# Before torch is imported anywhere: two test processes on two cores must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["WANDB_MODE"] = "offline"
for name in ("WANDB_API_KEY", "SEVA_EXP_STORE", "SEVA_EXP_DATA", "SEVA_EXP_PLUGINS"):
    os.environ.pop(name, None)

# A shell that starts tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SMALL = ["data.samples=40", "benchmark.shapes.images=10", "tracker=none", "dpo.warmup_ratio=0"]
"""Overrides that cut a run short."""

Cli = Callable[..., subprocess.CompletedProcess]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LONGEST, LONGEST_SLOW = 300, 1800
"""Seconds of one test, on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, as Playwright drives it."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH (apt install chromium)")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def _in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """What hangs fails, and shows where, also in a lock or a queue."""
    slow = any(map(request.node.get_closest_marker, ("slow", "gpu")))
    seconds = LONGEST_SLOW if slow else LONGEST

    def late(*_: object) -> None:
        pytest.fail(f"not done in {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)


@pytest.fixture(autouse=True)
def _where_there_is_a_gpu(request: pytest.FixtureRequest) -> None:
    """What is marked ``gpu`` is skipped where there is no such device."""
    marks = list(request.node.iter_markers("gpu"))
    if not marks:
        return
    import torch

    wanted = {name: value for mark in reversed(marks) for name, value in mark.kwargs.items()}
    if not torch.cuda.is_available():
        pytest.skip("torch.cuda is not available")
    if (there := torch.cuda.device_count()) < wanted.get("many", 1):
        pytest.skip(f"needs {wanted['many']} GPUs, there is {there}")
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    if gib < wanted.get("gib", 0):
        pytest.skip(f"needs a GPU of {wanted['gib']} GiB, this one has {gib:.0f}")


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Where processes are forked that have imported the package already."""
    found = Commands()
    yield found
    found.end()


@pytest.fixture
def cli(tmp_path: Path, commands: Commands) -> Cli:
    """``cli("+aug=moco", ...)`` runs ``python -m seva_exp`` in an empty folder; with options, which
    are those of ``subprocess.run``, in a process that is started anew."""

    def call(*words: str, **options) -> subprocess.CompletedProcess:
        # wandb tells its children of its own service, which ends with the test that started it.
        environment = options.pop("env", None)
        env = {k: v for k, v in (environment or os.environ).items() if "WANDB_SERVICE" not in k}
        if environment is None and not options:
            return commands.run([*words], tmp_path, env)
        command = [sys.executable, "-m", "seva_exp", *words]
        own = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300, "env": env}
        return subprocess.run(command, **(own | options))

    return call


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests share, so that equal stages are computed once in a session."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def numbers_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolVLM's processor insists on a package that spells numbers in video prompts."""
    if importlib.util.find_spec("num2words") is None:
        from transformers.models.smolvlm import processing_smolvlm

        monkeypatch.setattr(processing_smolvlm, "num2words", str)
