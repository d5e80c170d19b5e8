"""What the estimate of memory says of LLaVA-1.5-7B, against bytes counted on a GPU that is none."""

from __future__ import annotations

import pytest

GIB = 2**30
CLOSE = 0.15


@pytest.mark.parametrize(
    "case",
    [
        {"rank": 128, "micro": 1, "checkpointing": True},
        pytest.param({"rank": 128, "micro": 4, "checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"rank": 128, "micro": 1, "checkpointing": False}, marks=pytest.mark.slow),
        pytest.param({"rank": 128, "micro": 4, "checkpointing": False}, marks=pytest.mark.slow),
        pytest.param({"rank": 1024, "micro": 1, "checkpointing": True}, marks=pytest.mark.slow),
        pytest.param(
            {"rank": 128, "micro": 4, "checkpointing": True, "fast": "off"}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda case: " ".join(f"{name}={value}" for name, value in case.items()),
)
def test_training_takes_what_is_estimated(fake_gpu, case):
    """The second step, when AdamW's moments are there: in all, and the activations alone."""
    found = fake_gpu("training_memory", size="7b", **case)
    assert found["estimated"] == pytest.approx(found["counted"], rel=CLOSE)
    assert found["estimated_activations"] == pytest.approx(
        found["activations"], rel=CLOSE, abs=0.2 * GIB
    )


@pytest.mark.slow
@pytest.mark.parametrize("gib", [24, 80])
def test_generation_takes_what_is_estimated(fake_gpu, gib):
    """As many rows as the engine takes, within so much memory."""
    found = fake_gpu("generation_memory", size="7b", gib=gib, answer=40)
    assert found["estimated"] == pytest.approx(found["counted"], rel=CLOSE)
    assert found["estimated_rows"] == pytest.approx(found["rows"], rel=CLOSE)
