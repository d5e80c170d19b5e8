"""A finished run of the embedded model whose training changed answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from seva_exp import Experiment, Machine, run
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.records import Prediction, read_jsonl
from seva_exp.data import ShapesData
from seva_exp.training import DpoTraining

IMAGES = 5


def answers_in(run: Path) -> dict[str, dict[str, str]]:
    """By ``base`` and ``aligned`` the answer to each question."""
    return {
        which: {
            one.sample_id: one.text
            for one in read_jsonl(
                run / f"evaluate.{which}.shapes" / "predictions.jsonl", Prediction
            )
        }
        for which in ("base", "aligned")
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory, shared_store) -> Path:
    """Its folder."""
    experiment = Experiment(
        aug={"diffusion_noise": DiffusionNoise(step=600)},
        data=ShapesData(samples=40),
        dpo=DpoTraining(warmup_ratio=0.0, learning_rate=4e-3),
        benchmark={"shapes": ShapesBenchmark(images=IMAGES)},
    )
    runs = tmp_path_factory.mktemp("shipped")
    machine = Machine(store=str(shared_store), runs=str(runs), progress="off")
    words = ("+aug=diffusion_noise", "data.samples=40", "dpo.learning_rate=4e-3")
    return Path(run(experiment, machine, overrides=words, listeners=[]).dir)


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    """The run's folder, to be changed; its links lead into the same store."""
    folder = tmp_path / "runs" / "copy"
    shutil.copytree(trained, folder, symlinks=True)
    for link in folder.iterdir():
        if link.is_symlink():
            target = (trained / link.name).resolve()
            link.unlink()
            link.symlink_to(target)
    return folder
