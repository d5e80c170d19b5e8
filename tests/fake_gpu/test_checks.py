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
