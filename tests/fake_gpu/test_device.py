"""The fake devices by themselves: what they refuse, and what they write down."""

from __future__ import annotations

import pytest

ONCE = {
    **{name: {name: 1} for name in ("item", "tolist", "upload", "download", "synchronize")},
    "print": {"item": 1},
    "pageable": {"upload of pageable memory": 1},
    "mask": {"boolean index": 1},
    "index": {"upload": 1},
    "thread": {"upload": 1},
}
"""What waits once, and under which name."""
NEVER = ("view", "pinned", "filled", "backward")


@pytest.fixture(scope="module", params=["honest", "meta"])
def found(request, fake_gpu) -> dict:
    return fake_gpu("rules", device=request.param)


def test_what_cuda_refuses_is_refused(found):
    assert "at least two devices, cpu and cuda:0" in found["two devices"]
    assert "found torch.bfloat16 and torch.float32" in found["two formats"]
    assert "Tried to allocate 1.00 GiB, of 0.40 GiB" in found["no room"]
    assert found["number on the CPU"] == ""


def test_a_product_is_counted(found):
    """64 by 64 by 64, float32: multiply-adds times 2; its result, in blocks of 512 bytes."""
    assert found["product"] == {"flop": {"float32": 2 * 64**3}, "kernels": 1, "bytes": 4 * 64**2}


@pytest.mark.parametrize("act", ONCE)
def test_the_host_waits(found, act):
    assert found[act] == ONCE[act]


@pytest.mark.parametrize("act", NEVER)
def test_the_host_does_not_wait(found, act):
    assert found[act] == {}


def test_a_graph_is_played_on_what_lies_there(fake_gpu):
    """``x`` is 1 in the capture and 10 at the replay; ``kept`` has what both wrote."""
    found = fake_gpu("graphs")
    assert found["out"] == [21, 21, 21]
    assert found["kept"] == [[0, 0, 0], [0, 22, 22]]
    for what in ("item", "upload", "download", "mask"):
        assert "not permitted when stream is capturing" in found[what], what
    assert "reads memory that was freed" in found["freed"]
    assert found["after"] == ""
