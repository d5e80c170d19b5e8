"""The bodies of the tests that need a GPU (tests/gpu), on the honest device: so that they are known
to work, and to fail, before a GPU comes to hand."""

from __future__ import annotations

import pytest

from ..gpu.checks import CHECKS

SMALLER = {"attention_of_a_packed_row": {"heads": 2, "width": 32}}
"""For a CPU."""


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_of_a_real_gpu_passes(name, fake_gpu):
    fake_gpu("check", name=name, more=SMALLER.get(name, {}))


@pytest.mark.parametrize(
    ("name", "mistake", "why"),
    [
        ("recorded_steps", "item_in_the_recorded_step", "machine.cuda_graphs=on"),
        ("answers_in_half_precision", "weights_of_attention_in_float32", "to have the same dtype"),
        ("training_step", "mask_made_on_the_cpu", "to be on the same device"),
    ],
)
def test_a_check_of_a_real_gpu_fails(name, mistake, why, fake_gpu):
    code, said = fake_gpu.dies("check", name=name, more={}, mistake=mistake)
    assert code == 1 and why in said
