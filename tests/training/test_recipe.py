"""The optimizer's numbers do what their names say."""

from __future__ import annotations

import math

import pytest
from safetensors.torch import load_file

from seva_exp.training import DpoTraining

from .tools import trained

STEPS = 10
RECIPE = DpoTraining(
    batch_size=2, epochs=5, learning_rate=1e-3, warmup_ratio=0.0, schedule="constant", lora_rank=4
)
"""Five passes over four preferences, two a step."""


def run(folder, **changes):
    """The adapter's weights and the logged rows."""
    spec = RECIPE.model_copy(update=changes)
    adapter, rows = trained(folder, spec, n=4)
    assert len(rows) == STEPS
    return load_file(adapter / "adapter_model.safetensors"), rows


def size(weights, part):
    return sum(value.pow(2).sum().item() for name, value in weights.items() if part in name)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("constant", lambda done: 1.0),
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),
    ],
)
def test_the_learning_rate_warms_up_and_follows_its_schedule(tmp_path, schedule, after):
    _, rows = run(tmp_path, schedule=schedule, warmup_ratio=0.2)
    warm = 2
    rates = [
        step / warm if step < warm else after((step - warm) / (STEPS - warm))
        for step in range(STEPS)
    ]
    found = [row["learning_rate"] for row in rows]
    assert found == pytest.approx([1e-3 * rate for rate in rates], rel=1e-4)


def test_weight_decay_shrinks_the_weights(tmp_path):
    free, _ = run(tmp_path / "free")
    held, _ = run(tmp_path / "held", weight_decay=50.0)
    assert size(held, "lora_A") < 0.7 * size(free, "lora_A")


def test_a_gradient_is_clipped_to_its_largest_norm(tmp_path):
    """Adam does not see a gradient's scale, unless it is below its epsilon."""
    free, rows = run(tmp_path / "free")
    held, _ = run(tmp_path / "held", max_grad_norm=1e-12)
    assert size(held, "lora_B") < 1e-4 * size(free, "lora_B")
    assert rows[0]["grad_norm"] > 1e-3
