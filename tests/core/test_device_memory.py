"""Whose memory a run takes, and how much there is."""

from __future__ import annotations

import pytest

from seva_exp import Machine
from seva_exp.core import device_memory
from seva_exp.core.device_memory import GIB, Numbers, device_of

HALF = Numbers(2, gpu=True)


@pytest.mark.parametrize(
    ("gpu", "given", "planned", "size"),
    [
        (None, 24, False, 24),
        (None, 80, True, 80),
        ((40, 30), None, False, 40),
        ((40, 30), 80, False, 40),
        ((40, 30), 80, True, 80),
        ((40, 30), 24, False, 24),
    ],
)
def test_a_gpu_has_what_is_declared_but_no_more_than_it_has(monkeypatch, gpu, given, planned, size):
    """Unless it is planned for another machine."""
    there = gpu and tuple(GIB * one for one in gpu)
    monkeypatch.setattr(device_memory, "_gpu", lambda machine: there)
    device = device_of(Machine(memory_gb=given), planned)
    assert (device.bytes, device.numbers) == (size * GIB, HALF)


def test_a_cpu_has_main_memory_and_float32(monkeypatch):
    monkeypatch.setattr(device_memory, "_gpu", lambda machine: pytest.fail("looked"))
    device = device_of(Machine(device="cpu", processes=2))
    assert device.numbers == Numbers(4, gpu=False) and device.shared == 2
    assert device.free <= device.bytes
    assert device_of(Machine(device="cpu", dtype="bfloat16")).numbers.item == 2


def test_truth_values_of_before_choose_cuda_graphs():
    chosen = [Machine(cuda_graphs=value).cuda_graphs for value in (True, False, "on")]
    assert chosen == ["auto", "off", "on"]
