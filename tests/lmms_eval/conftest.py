"""A finished run of the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

from seva_exp import Experiment, Machine, run
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.data import ShapesData
from seva_exp.training import DpoTraining

IMAGES = 10


@pytest.fixture(scope="session")
def finished(tmp_path_factory, shared_store) -> Path:
    """Its folder."""
    experiment = Experiment(
        aug={"diffusion_noise": DiffusionNoise(step=600)},
        data=ShapesData(samples=40),
        dpo=DpoTraining(warmup_ratio=0.0),
        benchmark={"shapes": ShapesBenchmark(images=IMAGES)},
    )
    runs = tmp_path_factory.mktemp("second_opinion")
    return Path(run(experiment, Machine(store=str(shared_store), runs=str(runs))).dir)
