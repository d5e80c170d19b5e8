"""Shared helpers: a small experiment, a command line in a folder of its own."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from .forking import Commands, Ends

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
PATIENCE = 120_000
"""Milliseconds that a browser may take for anything, on a busy machine."""


LONG = [
    "vllm/test_runs", "test_faults", "test_ray", "test_launchers", "benchmarks/test_suites",
    "lmms_eval/test_second_opinion",
    "test_presets", "command/test_sweep", "command/test_cli", "test_interrupted",
    "test_end_to_end", "training/test_dpo", "test_adding", "test_plugins", "test_damage",
    "benchmarks/test_judged_runs", "training/test_reference", "command/test_manners",
    "fake_gpu/test_commands", "benchmarks/test_questions", "test_dpo_presets",
    "training/test_long_run", "test_secrets", "test_several_processes", "test_served_runs",
    "test_methods", "training/test_release", "compare/test_hostile_pages",
    "fake_gpu/test_waits", "test_packaging", "test_disks", "models/test_add_a_model",
    "experiment/test_so_far", "fake_gpu/test_device", "test_rounds", "test_members",
]  # fmt: skip
"""The files that take longest (15 to 60 seconds on a quiet core), the longest first; before them
those whose slow tests take ten minutes and more."""
MANY = 500
"""As many tests as nobody runs but for the whole suite."""


def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist begins with the files of most tests, not with those that take longest; one of
    these at the end would be waited for by all other processes."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those of most tests; in a file the order stays."""
    count = Counter(item.path for item in items)
    first = {ROOT / "tests" / f"{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: (first.get(item.path, len(LONG)), -count[item.path], item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """pytest-xdist cannot send half a surrogate pair, as the fuzzing makes: all tests would end."""
    report = yield
    report.sections = [(name, encodable(text)) for name, text in report.sections]
    if report.failed and (text := str(report.longrepr)) != encodable(text):
        report.longrepr = encodable(text)
    return report


def encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, as Playwright drives it."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH (apt install chromium)")
    with api.sync_playwright() as driver:
        options = {"executable_path": path, "args": ["--no-sandbox"], "timeout": PATIENCE}
        browser = driver.chromium.launch(**options)
        new_context = browser.new_context

        def patient(**options: Any) -> Any:
            context = new_context(**options)
            context.set_default_timeout(PATIENCE)
            return context

        browser.new_context = patient
        yield browser
        browser.close()


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """What is there when a file's tests begin no collection of garbage looks through again: each
    training asks for several, and torch and TRL alone are half a million objects."""
    gc.collect()
    gc.freeze()


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
def commands(request: pytest.FixtureRequest) -> Iterator[Commands]:
    """Where processes are forked that have imported the package already."""
    found = Commands(early=len(request.session.items) > MANY)
    yield found
    found.end()


@pytest.fixture
def cli(tmp_path: Path, commands: Commands) -> Cli:
    """``cli("+aug=moco", ...)`` runs ``python -m seva_exp`` in an empty folder, with ``variables``
    beside this process's; ``ends``: it is killed at a certain point. With options, which are those
    of ``subprocess.run``, in a process that is started anew."""

    def call(
        *words: str,
        variables: Mapping[str, str] | None = None,
        ends: Ends | None = None,
        **options,
    ) -> subprocess.CompletedProcess:
        # wandb tells its children of its own service, which ends with the test that started it.
        environment = options.pop("env", None)
        wanted = {**(environment or os.environ), **(variables or {})}
        env = {k: v for k, v in wanted.items() if "WANDB_SERVICE" not in k}
        if environment is None and not options:
            return commands.run([*words], tmp_path, env, ends)
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
