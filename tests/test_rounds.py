"""Several rounds on the embedded model: each asks and refers to the one before."""

from __future__ import annotations

import pytest

from seva_exp.core.records import Answer, Prediction
from seva_exp.methods import SevaMethod
from seva_exp.training import DpoTraining

from .test_methods import first_step, go, manifest, rows, small


def test_every_model_is_measured_with_its_own_adapter(rounds):
    said = [
        [
            p.text
            for p in rows(rounds["two"], f"evaluate.{which}.shapes/predictions.jsonl", Prediction)
        ]
        for which in ("base", "round1", "aligned")
    ]
    assert said[0] != said[1] != said[2] != said[0]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory, shared_store):
    """One round, then two of them with either reference, in one store."""
    reports = {}
    for name, method in (
        ("one", SevaMethod()),
        ("two", SevaMethod(rounds=2)),
        ("base", SevaMethod(rounds=2, reference="base")),
    ):
        folder = tmp_path_factory.mktemp(name)
        strong = DpoTraining(learning_rate=5e-3, epochs=3)
        reports[name] = go(small(method=method, dpo=strong), folder, shared_store)
    return reports


def test_round_2_asks_the_model_that_round_1_aligned(rounds):
    two = rounds["two"]
    first, second = manifest(two, "align.round1"), manifest(two, "align.round2")
    assert second["inputs"]["align.round1"] == first["key"]
    asked = manifest(two, "answers.clean.round2")
    assert asked["inputs"]["align.round1"] == first["key"]
    file = "answers.diffusion_noise.round{}/answers.jsonl"
    answers = [[a.text for a in rows(two, file.format(n), Answer)] for n in (1, 2)]
    assert answers[0] != answers[1]


def test_each_round_is_measured_and_read_from_the_store(rounds):
    one, two = rounds["one"], rounds["two"]
    assert {s.model for s in two.scores} == {"base", "round1", "aligned"}
    cached = {stage.name: stage.cached for stage in two.stages}
    for label in ("samples", "answers.clean.round1", "align.round1", "evaluate.round1.shapes"):
        assert cached[label], label
    for label in ("answers.clean.round2", "pairs.round2", "align.round2"):
        assert not cached[label], label
    final = {(s.split, s.metric): s.value for s in one.scores if s.model == "aligned"}
    assert final == {(s.split, s.metric): s.value for s in two.scores if s.model == "round1"}
    assert two.pairs == PairsOf(two, "pairs.round2")


class PairsOf:
    """Equal to a report's pair counts when they are those of this stage."""

    def __init__(self, report, label: str) -> None:
        self.summary = manifest(report, label)["summary"]

    def __eq__(self, other) -> bool:
        return all(getattr(other, k) == self.summary[k] for k in ("sampled", "kept", "dropped"))


def test_the_reference_of_a_round_is_the_previous_model_or_the_base(rounds):
    assert first_step(rounds["two"], "align.round2")["rewards/chosen"] == pytest.approx(0, abs=1e-5)
    assert abs(first_step(rounds["base"], "align.round2")["rewards/chosen"]) > 1e-3
    same = {stage.name: stage.key for stage in rounds["two"].stages}
    differ = {s.name for s in rounds["base"].stages if same[s.name] != s.key}
    trained = {"align.round2", "evaluate.aligned.shapes", "compare.shapes"}
    assert differ == trained | {"reference.round2"}
