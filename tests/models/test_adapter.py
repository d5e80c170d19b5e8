"""A trained adapter on the model: what is merged is the adapter to rounding, what rounding would
lose stays beside the weights, and nothing else of it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText

from seva_exp import StageError
from seva_exp.core.interfaces import Request
from seva_exp.decoding.engine import Engine
from seva_exp.models import adapter
from seva_exp.models.adapter import LOST, Beside, merge_adapter
from seva_exp.models.vlm import Vlm, load

from .asking import MACHINE, published
from .families import draw, each_family

HALF = MACHINE.model_copy(update={"dtype": "bfloat16"})
LARGE, SMALL = 0.3, 0.002
"""Of the weights' size: a change that bfloat16 holds, and one like those of the papers' rates."""


def trained(
    vlm: Vlm, folder: Path, size: float, projector: bool = False, first: float | None = None
) -> Path:
    """An adapter as a stage leaves it, each layer's change ``size`` times its weights; those of the
    first block ``first`` times."""
    names = vlm.language_modules()
    whole = vlm.projector_modules() if projector else None
    config = LoraConfig(r=4, lora_alpha=8, target_modules=names, modules_to_save=whole)
    torch.manual_seed(0)
    model = get_peft_model(vlm.model, config)
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_B"):
            down, up = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
            up.normal_()
            here = first if first and ".layers.0." in name else size
            up *= here * layer.base_layer.weight.norm() / (2 * (up @ down).norm())
        elif "modules_to_save" in name and hasattr(layer, "weight"):
            layer.weight.data *= 1.5
    model.save_pretrained(str(folder))
    return folder


def logits(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        out = model.eval()(**{k: v.to(model.dtype) if v.is_floating_point() else v
                              for k, v in inputs.items()})  # fmt: skip
    return out.logits.float().log_softmax(-1)


def plain(spec, dtype):
    return AutoModelForImageTextToText.from_pretrained(spec.path, dtype=dtype)


def beside(model) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, Beside)]


@pytest.mark.parametrize("projector", [False, True])
def test_in_float32_it_is_peft_s_merge_to_the_bit(spec_of, tmp_path, projector):
    spec = spec_of("llava15")
    folder = trained(load(spec, MACHINE), tmp_path / "adapter", SMALL, projector)
    ours = load(spec, MACHINE, folder, pytest.fail).model.state_dict()
    peft = PeftModel.from_pretrained(plain(spec, torch.float32), str(folder)).merge_and_unload()
    theirs = peft.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    base = plain(spec, torch.float32).state_dict()
    changed = {name for name in base if not torch.equal(base[name], ours[name])}
    assert any("projector" in name for name in changed) == projector


@each_family
@pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
def test_in_bfloat16_it_is_as_near_to_the_truth_as_peft_s_adapter(name, size, spec_of, tmp_path):
    """The truth: the same rounded weights and the adapter, computed in float32."""
    spec = spec_of(name)
    vlm = load(spec, HALF)
    layers = vlm.language_modules()
    folder = trained(vlm, tmp_path / "adapter", size)
    inputs = published(vlm, draw(60, 30), "What is in it?")
    apart = PeftModel.from_pretrained(plain(spec, torch.bfloat16), str(folder))
    apart_logits, truth = logits(apart, inputs), logits(apart.float(), inputs)
    told: list[str] = []
    ours = load(spec, HALF, folder, told.append)
    assert beside(ours.model) == ([] if size == LARGE else layers)
    assert len(told) == (size != LARGE)
    error, usual = ((found - truth).norm() for found in (logits(ours.model, inputs), apart_logits))
    assert error < 1.3 * usual, (error, usual)
    assert {p.dtype for p in [*ours.model.parameters()]} == {torch.bfloat16}
    assert not any("lora" in name for name, _ in ours.model.named_modules())


def test_of_a_small_change_merging_loses_most(spec_of, tmp_path):
    """Which is why it is not merged: the sum over the layers keeps less than half of it."""
    spec = spec_of("llava15")
    folder = trained(load(spec, HALF), tmp_path / "adapter", SMALL / 4)
    base, merged = plain(spec, torch.bfloat16), plain(spec, torch.bfloat16)
    outcome = merge_adapter(merged, folder, most=float("inf"))
    assert outcome.beside == 0 and outcome.lost > 0.5
    exact = plain(spec, torch.bfloat16).float()
    before = {name: weight.clone() for name, weight in exact.state_dict().items()}
    merge_adapter(exact, folder)
    wanted = kept = 0.0
    for name, weight in exact.state_dict().items():
        change = (weight - before[name]).double()
        found = (merged.state_dict()[name].float() - base.state_dict()[name].float()).double()
        wanted, kept = wanted + (change * change).sum(), kept + (change * found).sum()
    assert kept < 0.5 * wanted


def test_it_is_decided_layer_by_layer(spec_of, tmp_path):
    spec = spec_of("llava15")
    folder = trained(load(spec, HALF), tmp_path / "adapter", SMALL, first=LARGE)
    model = plain(spec, torch.bfloat16)
    outcome = merge_adapter(model, folder)
    assert (outcome.merged, outcome.beside) == (7, 14) and outcome.lost > LOST
    assert not any(".layers.0." in name for name in beside(model)) and len(beside(model)) == 14
    assert "14 of 21 layers is kept beside the bfloat16 weights" in outcome.rounding_note(
        torch.bfloat16
    )


def test_a_layer_with_a_bias_and_the_adapter_beside_it():
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 5)
    down, up, x = torch.randn(2, 6), torch.randn(5, 2), torch.randn(3, 4, 6)
    made = Beside(layer, down, up)
    assert torch.allclose(made(x), layer(x) + x @ down.T @ up.T, atol=1e-6)
    assert made.weight is layer.weight and not made.state_dict().keys() & {"up", "down"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [1.0, 1e-5, 1e-8])
def test_its_rounding_loses_nothing_however_small_it_is(size, dtype):
    """Of float16's numbers those below 6e-5 have fewer and fewer digits."""
    torch.manual_seed(0)
    down, up = torch.randn(8, 64) * 0.02, torch.randn(64, 8) * size
    ours = [one.to(dtype).float() for one in adapter._balanced(down, up)]
    assert (ours[1] @ ours[0] - up @ down).norm() < 0.004 * (up @ down).norm()
    assert torch.equal(adapter._balanced(down, 0 * up)[0], down)


def test_it_answers_and_the_projector_is_in_the_model_s_format(spec_of, tmp_path):
    spec = spec_of("llava15")
    folder = trained(load(spec, MACHINE), tmp_path / "adapter", SMALL, projector=True)
    vlm = load(spec, HALF, folder)
    found = vlm.model.get_submodule("model.multi_modal_projector.linear_1").weight
    old = plain(spec, torch.float32).get_submodule("model.multi_modal_projector.linear_1").weight
    assert torch.equal(found, (old * 1.5).to(torch.bfloat16))
    request = Request("a", "a", lambda: draw(60, 30), "What?", 4)
    [[reply]] = Engine(vlm, 2).run([request])
    assert 1 <= len(reply.tokens) <= 4


def test_another_adapter_is_refused_by_name(spec_of, tmp_path):
    spec = spec_of("llava15")
    folder = trained(load(spec, MACHINE), tmp_path / "adapter", SMALL)
    with pytest.raises(StageError, match=r"adapter: the model has no .*another model's adapter"):
        load(spec_of("idefics3"), MACHINE, folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    with pytest.raises(StageError, match="use_rslora=True is not known"):
        load(spec, MACHINE, folder)
