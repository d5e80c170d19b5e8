"""The command under the release candidate of Hydra that constraints-next.txt names, in an
environment of its own above the one that runs the tests (slow)."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SMALL = ("data.samples=16", "benchmark.shapes.images=3", "tracker=none", "dpo.warmup_ratio=0")
RAY_LAUNCHER = "hydra-ray-launcher==1.4.0rc3"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment's Python: what is here, and before it what constraints-next.txt names."""
    folder = tmp_path_factory.mktemp("candidate") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "here.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    packages = [["-r", str(ROOT / "constraints-next.txt")]]
    if find_spec("hydra_plugins.hydra_ray_launcher"):  # Ray's launcher of today warns under 1.4
        packages.append(["--no-deps", RAY_LAUNCHER])
    for words in packages:
        command = [*pip, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            pytest.skip(f"cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture
def run(candidate: Path, tmp_path: Path) -> Run:
    """Run the command in the test's folder, under the candidate or under the Hydra that is here."""

    def call(*words: str, python: Path = candidate) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80"}
        command = [str(python), "-m", "seva_exp", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return call


def test_it_is_the_candidate(candidate: Path) -> None:
    script = "import hydra, omegaconf, optuna; print(hydra.__version__)"
    out = subprocess.run([str(candidate), "-c", script], capture_output=True, text=True, check=True)
    wanted = (ROOT / "constraints-next.txt").read_text(encoding="utf-8")
    assert f"hydra-core=={out.stdout.strip()}\n" in wanted


def test_a_default_run_is_done_and_its_artifacts_are_those_of_the_hydra_that_is_here(
    run: Run,
) -> None:
    done = run("+aug=diffusion_noise", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    here = run("+aug=diffusion_noise", *SMALL, python=Path(sys.executable))
    assert "9 stages, 0 to do, 9 cached" in here.stdout, here.stderr


def test_a_sweep_runs_each_of_its_jobs(run: Run) -> None:
    done = run("-m", "+aug=diffusion_noise", "dpo.beta=0.1,0.3", *SMALL, "stop_after=pairs")
    assert done.returncode == 0, done.stderr
    assert "sweep: 2 done" in done.stdout
    assert "Warning" not in done.stderr


def test_a_search_by_its_optuna_makes_trials(run: Run) -> None:
    words = ("hydra.sweeper.n_trials=2", "data.samples=16", "tracker=none")
    done = run("-cn", "find_augmentation", *words, "stop_after=pairs", "objective=pairs/kept_share")
    assert done.returncode == 0, done.stderr
    assert "sweep: 2 done" in done.stdout and "best_value" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["+aug=diffusion_noise", "dpo.betta=1"], "dpo.betta: no such field. Did you mean"),
        (["+aug=difusion_noise"], "Did you mean 'diffusion_noise'?"),
        (["+aug=diffusion_noise", "dpo.beta=-1"], "dpo.beta=-1: input should be greater than 0."),
        (["-cn", "seva_betta"], "Did you mean 'seva_beta'?"),
    ],
)
def test_a_typo_is_told_as_under_the_hydra_that_is_here(
    run: Run, words: list[str], told: str
) -> None:
    done, here = run(*words), run(*words, python=Path(sys.executable))
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr == here.stderr


def test_the_help_and_a_plan_are_the_same_bytes(run: Run) -> None:
    for words in (["--help"], ["method=stic", "sft=stic", "dry_run=true"]):
        done, here = run(*words), run(*words, python=Path(sys.executable))
        assert done.returncode == 0, done.stderr
        assert done.stdout == here.stdout
