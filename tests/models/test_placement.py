"""Where weights go when a model is loaded."""

from __future__ import annotations

import pytest
import torch

from seva_exp.core.machine import Machine, resolve_dtype
from seva_exp.models import HubModel
from seva_exp.models import vlm as module
from seva_exp.models.vlm import load

from .asking import MACHINE

CUDA = torch.device("cuda", 1)
HUB = HubModel(path="org/name")


def test_to_a_gpu_they_go_straight_and_elsewhere_as_ever():
    placed = module._placement(HUB, CUDA, torch.bfloat16)
    assert placed == {"device_map": {"": CUDA}}
    for kind in ("cpu", "mps"):
        assert module._placement(HUB, torch.device(kind), torch.float32) == {}
    four = HUB.model_copy(update={"quantization": "nf4"})
    assert set(module._placement(four, CUDA, torch.bfloat16)) == {
        "device_map", "quantization_config",
    }  # fmt: skip


def test_going_straight_gives_the_same_model_and_leaves_no_hooks(spec_of, monkeypatch):
    """transformers dispatches (hooks, a map of devices, which a Trainer takes for a model spread
    over several) only where there are several devices."""
    usual = load(spec_of("llava15"), MACHINE).model
    straight = {"device_map": {"": torch.device("cpu")}}
    monkeypatch.setattr(module, "_placement", lambda *_: straight)
    ours = load(spec_of("llava15"), MACHINE).model
    for (name, one), (_, other) in zip(
        ours.state_dict().items(), usual.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    for (name, one), (_, other) in zip(ours.named_buffers(), usual.named_buffers(), strict=True):
        assert torch.equal(one, other) and one.device == torch.device("cpu"), name
    assert not hasattr(ours, "hf_device_map")
    assert not any(hasattr(inner, "_hf_hook") for inner in ours.modules())


@pytest.mark.parametrize(
    ("native", "emulated", "dtype"),
    [(True, True, torch.bfloat16), (False, True, torch.float16), (False, False, torch.float16)],
    ids=["A100", "T4", "older"],
)
def test_bfloat16_that_is_emulated_is_not_taken(monkeypatch, native, emulated, dtype):
    def supported(including_emulation: bool = True) -> bool:
        return native or (including_emulation and emulated)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_dtype(Machine(), CUDA) == dtype
    assert resolve_dtype(Machine(dtype="bfloat16"), CUDA) == torch.bfloat16
    assert resolve_dtype(Machine(), torch.device("cpu")) == torch.float32
