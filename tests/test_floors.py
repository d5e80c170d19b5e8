"""The shipped model keeps its floors on 1000 held-out pictures of the unbiased world; among the
quick tests on 250."""

from __future__ import annotations

import pytest

from seva_exp import Experiment, Machine, Options
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.experiment import run
from seva_exp.models.spec import TINY_CHECKPOINT


def scores(folder, images, **benchmark):
    """(split, metric) -> the base's score."""
    report = run(
        Experiment(
            aug={"diffusion_noise": DiffusionNoise()},
            benchmark={"shapes": ShapesBenchmark(images=images, **benchmark)},
        ),
        Machine(runs=str(folder / "runs"), progress="off"),
        Options(stop_after="evaluate.base"),
    )
    return {(s.split, s.metric): s.value for s in report.scores}


@pytest.fixture(scope="module", params=[250, pytest.param(1000, marks=pytest.mark.slow)])
def value(request, tmp_path_factory):
    return scores(tmp_path_factory.mktemp("floors"), request.param)


def test_existence(value):
    assert value["pope", "accuracy"] >= 82


def test_visual_questions(value):
    assert value["vqa", "mean"] >= 65


def test_hallucination_leaves_room_but_not_too_much(value):
    assert 20 <= value["chair", "chair_i"] <= 35


@pytest.mark.slow
def test_a_description_before_the_question_does_not_hurt(tmp_path):
    plain, described = (scores(tmp_path, 1000, describe_and_respond=way) for way in (None, True))
    assert described["vqa", "mean"] >= plain["vqa", "mean"] - 1
    assert described["vqa_position", "accuracy"] >= plain["vqa_position", "accuracy"] - 5


def test_the_checkpoint_is_small():
    assert (TINY_CHECKPOINT / "model.safetensors").stat().st_size < 5_000_000
