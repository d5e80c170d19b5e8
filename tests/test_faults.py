"""Files that fail: at whichever call it happens, a run ends as ever or with an error that names the
file, and the same command afterwards ends as if nothing had been."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.errors import StageError
from seva_exp.core.store import Store
from seva_exp.data import ShapesData
from seva_exp.experiment import run
from seva_exp.report.html import HtmlReport
from seva_exp.runs.links import followed
from seva_exp.runs.verify import verify_store
from seva_exp.stages import base, loaded
from seva_exp.training import DpoTraining

from .faults import KINDS, failing

PARTS = 4
WORDS_OF_GOING_ON = ("same command resumes", "cannot write to this folder", "may not be read")


def small() -> Experiment:
    return Experiment(
        aug={"diffusion_noise": DiffusionNoise(step=800)},
        data=ShapesData(samples=3),
        benchmark={"shapes": ShapesBenchmark(images=1)},
        dpo=DpoTraining(epochs=1, warmup_ratio=0),
    )


def go(folder: Path, stop: str | None):
    machine = Machine(
        store=str(folder / "store"), runs=str(folder / "runs"), progress="off", checkpoint_minutes=0
    )
    return run(small(), machine, Options(stop_after=stop), listeners=[HtmlReport()])


def result(report) -> dict[str, object]:
    """All that a run leaves which does not depend on time; where links are refused, files stand for
    them, and what only the work needed may be left where it cannot be deleted."""
    folder = Path(report.dir)
    found: dict[str, object] = {
        f"{stage.name}/{file.relative_to(artifact)}": file.read_bytes()
        for stage in report.stages
        for artifact in [followed(folder / stage.name)]
        for file in sorted(artifact.rglob("*"))
        if file.is_file() and file.name not in ("manifest.json", "throughput.jsonl")
        if not file.is_relative_to(artifact / "parts")
    }
    row = json.loads((folder / "report.json").read_text())
    found |= {name: row[name] for name in ("key", "pairs", "scores", "deltas")}
    assert (folder / "report.html").stat().st_size > 1000
    return found


@pytest.fixture(scope="module")
def model_kept(module_patch):
    """The embedded model is loaded once; training gives it back changed, so that it is loaded
    anew after that."""
    kept: dict[object, Any] = {}
    real = loaded.load_model

    def load(spec, machine, adapter, warn=lambda text: None):
        if adapter is not None:
            return real(spec, machine, adapter, warn)
        name = (spec.to_json()["kind"],)
        if name not in kept or any("lora_" in n for n, _ in kept[name].model.named_parameters()):
            kept[name] = real(spec, machine, adapter, warn)
        return kept[name]

    module_patch.setattr(loaded, "load_model", load)
    module_patch.setattr(base, "free_memory", lambda: None)  # a second a run


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def expected(tmp_path_factory, model_kept):
    return result(go(tmp_path_factory.mktemp("calm"), "pairs"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return result(go(tmp_path_factory.mktemp("whole"), None))


def calls(folder: Path, kind: str, stop: str | None) -> int:
    """How many calls of a whole run a fault may happen to."""
    with failing((folder,), kind) as layer:
        go(folder, stop)
    return layer.count


def try_one(folder: Path, kind: str, n: int, stop: str | None, expected: dict) -> str:
    """What became of the run whose n-th call fails; and the run after it is whole."""
    told = "as ever"
    with failing((folder,), kind, n) as layer:
        try:
            assert result(go(folder, stop)) == expected
        except (InputError, StageError) as error:
            told = str(error)
            assert str(folder) in told, (layer.failed[:1], told)
            assert any(words in told for words in WORDS_OF_GOING_ON), told
    assert layer.failed, "the fault never came"
    assert result(go(folder, stop)) == expected, (layer.failed[:1], told)
    found = verify_store(Store(folder / "store"))
    assert not found.faults, (layer.failed[:1], found.faults)
    return told


def try_all(folder: Path, kind: str, some: slice, stop: str | None, expected: dict) -> int:
    """A fault at ``some`` of the calls that it can happen to; at how many."""
    count, wrong = calls(folder / "counted", kind, stop), []
    tried = range(1, count + 1)[some]
    for n in tried:
        try:
            try_one(folder / str(n), kind, n, stop, expected)
        except Exception as error:  # all that is wrong is told together
            wrong.append(f"{kind} {n}/{count}: {type(error).__name__}: {error}"[:600])
        shutil.rmtree(folder / str(n), ignore_errors=True)
    assert not wrong, "\n".join(wrong)
    return len(tried)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_some_calls(kind, tmp_path, expected):
    """Answers, pairs and the page, at four calls of each kind."""
    count = calls(tmp_path / "first", kind, "pairs")
    assert count >= 20
    assert try_all(tmp_path, kind, slice(count // 8, None, count // 4), "pairs", expected) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_every_call(kind, part, tmp_path, expected):
    """Answers, pairs and the page, at every call; in parts, each of which ends in time."""
    tried = try_all(tmp_path, kind, slice(part, None, PARTS), "pairs", expected)
    print(f"{kind}: {tried} faults")
    assert tried >= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_in_training_and_measuring(kind, tmp_path, whole):
    """The whole run, at 24 calls of each kind."""
    count = calls(tmp_path / "first", kind, None)
    tried = try_all(tmp_path, kind, slice(count // 48, None, count // 24), None, whole)
    print(f"{kind}: {tried} faults of {count}")
    assert tried >= 24
