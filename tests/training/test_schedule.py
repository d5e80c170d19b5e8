"""What a training is going to do is told before it begins; one that can learn nothing is refused,
and an adapter that changed nothing is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from seva_exp import StageError
from seva_exp.training import DpoTraining
from seva_exp.training.align import align
from seva_exp.training.lora import has_changed
from seva_exp.training.preferences import PairSet
from seva_exp.training.schedule import Schedule

from .test_preferences import pair_of, samples
from .tools import job, placement, preferences, tiny, train, trained


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("rows", [1, 4, 5, 9, 41])
def test_steps_and_peak_are_those_of_transformers(tmp_path, schedule, warmup, rows):
    from transformers import get_scheduler

    from seva_exp.training.arguments import SCHEDULES

    spec = DpoTraining(
        batch_size=4, schedule=schedule, warmup_ratio=warmup, learning_rate=3e-4, epochs=1
    )
    found = Schedule.of(spec, rows)
    assert found.steps == math.ceil(rows / 4)
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=3e-4)
    plan = get_scheduler(
        SCHEDULES[schedule], optimizer, math.ceil(found.steps * warmup), found.steps
    )
    rates = []
    for _ in range(found.steps):
        rates.append(plan.get_last_lr()[0])
        optimizer.step()
        plan.step()
    assert found.peak == pytest.approx(max(rates), rel=1e-9)


def test_the_logged_rates_are_as_foretold(tmp_path):
    spec = DpoTraining(batch_size=4, warmup_ratio=0.3, learning_rate=1e-3, lora_rank=4, epochs=2)
    folder, rows = trained(tmp_path / "x", spec, n=10)
    found = Schedule.of(spec, 10)
    assert len(rows) == found.steps == 6
    assert max(row["learning_rate"] for row in rows) == pytest.approx(found.peak)
    assert sum(row["learning_rate"] < found.peak for row in rows[: found.warmup]) == 2
    assert str(found) == "6 steps, 2 of warm-up, peak rate 0.001"
    assert has_changed(folder, None, rows)


def pair_set(tmp_path, n=3):
    return PairSet(
        [pair_of(one) for one in samples(tmp_path / "pictures", n)], tmp_path / "pictures"
    )


def test_a_training_of_which_no_step_has_a_rate_is_refused_before_it_begins(tmp_path):
    place, told = placement(tmp_path / "work"), []
    spec = DpoTraining(batch_size=4, lora_rank=4)
    with pytest.raises(StageError) as caught:
        align(job(tiny(), spec, replace(place, note=told.append)), pair_set(tmp_path))
    said = str(caught.value)
    assert "align: 3 rows make 1 step with dpo.batch_size=4" in said
    for remedy in ("dpo.warmup_ratio=0", "dpo.epochs=2", "dpo.batch_size"):
        assert remedy in said
    assert not told and not list(place.work.iterdir())


def test_steps_warm_up_and_peak_are_told_and_kept(tmp_path):
    place, told = placement(tmp_path / "work"), []
    spec = DpoTraining(batch_size=2, lora_rank=4, learning_rate=1e-3)
    made = align(job(tiny(), spec, replace(place, note=told.append)), pair_set(tmp_path))
    assert told == ["align: 2 steps, 1 of warm-up, peak rate 0.001"]
    assert (made["steps"], made["warmup_steps"], made["learning_rate_peak"]) == (2, 1, 1e-3)
    assert made["adapter_changed"] is True


def test_an_adapter_that_changed_nothing_is_known(tmp_path):
    """One step at rate 0, which the stage would refuse: once new, once gone on with."""
    spec = DpoTraining(batch_size=4, warmup_ratio=0.0, learning_rate=1e-3, lora_rank=4)
    still = spec.model_copy(update={"warmup_ratio": 0.1})

    def changed(work, spec, start=None):
        vlm = tiny()
        folder, rows = train(job(vlm, spec, placement(work), start=start), preferences(vlm, 4))
        return folder, has_changed(folder, start, rows)

    assert not changed(tmp_path / "new", still)[1]
    learnt, anything = changed(tmp_path / "learnt", spec)
    assert anything
    assert not changed(tmp_path / "on", still, learnt)[1]
    assert changed(tmp_path / "further", spec, learnt)[1]


def test_a_projector_beside_a_new_adapter_has_changed_if_there_was_a_gradient(tmp_path):
    spec = DpoTraining(batch_size=4, lora_rank=4, train_projector=True)
    folder, _ = trained(tmp_path / "x", spec, n=4)
    assert not has_changed(folder, None, [{"grad_norm": 0.0}, {"grad_norm": 0.0}])
    assert has_changed(folder, None, [{"grad_norm": 0.0}, {"grad_norm": 0.1}])


def test_what_is_kept_of_an_adapter_is_json(tmp_path):
    spec = DpoTraining(batch_size=3, warmup_ratio=0.0, lora_rank=4)
    made = align(job(tiny(), spec, placement(tmp_path / "work")), pair_set(tmp_path))
    assert json.loads(json.dumps(made))["adapter_changed"] is True
