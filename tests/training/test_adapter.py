"""What is trained, from where, and what is saved: projector, rounds, shapes."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file

from seva_exp import Machine, StageError
from seva_exp.models.vlm import load
from seva_exp.training import DpoTraining
from seva_exp.training.dpo import trainer_for
from seva_exp.training.peft_private import COPY

from ..models.families import FAMILIES, build, slow_but
from .tools import first_loss, job, logprob, placement, preferences, tiny, train, trained

RECIPE = DpoTraining(batch_size=6, learning_rate=1e-3, warmup_ratio=0.0)
PROJECTOR = RECIPE.model_copy(update={"train_projector": True})
EXPECTED = {
    **{name: ["model.multi_modal_projector"] for name in FAMILIES},
    "idefics3": ["model.connector"],
    "qwen25_vl": ["model.visual.merger"],
    "qwen3_vl": ["model.visual.merger", "model.visual.deepstack_merger_list.0"],
    "smolvlm2": ["model.connector"],
}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """An adapter with a trained projector."""
    return trained(tmp_path_factory.mktemp("once") / "x", PROJECTOR)[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An adapter without."""
    return trained(tmp_path_factory.mktemp("plain") / "x", RECIPE)[0]


def test_a_model_without_a_projector_says_so():
    assert tiny().projector_modules() == ["model.multi_modal_projector"]
    vlm = tiny()
    vlm.model.model.bridge = vlm.model.model.multi_modal_projector
    del vlm.model.model.multi_modal_projector
    with pytest.raises(StageError, match="train_projector=true"):
        vlm.projector_modules()


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_the_projector_is_trained_and_the_reference_keeps_the_original(once, tmp_path):
    original = tiny().model.model.multi_modal_projector.state_dict()
    for name, value in original.items():
        saved = weights(once)[f"base_model.model.model.multi_modal_projector.{name}"]
        assert (saved - value).abs().max() > 1e-4, name
    trainer, _, batch = first_loss(tmp_path / "x", PROJECTOR, start=once, reference="base")
    inputs = {key: value for key, value in batch.items() if "owner" not in key}
    policy, reference = trainer.forward(trainer.model, inputs), trainer._reference(inputs)
    base, aligned = tiny(), tiny(once)
    for number, row in enumerate(trainer.order):
        preference = preferences(base, 6)[row]
        assert reference[number].item() == pytest.approx(
            logprob(base, preference, preference.chosen), abs=1e-3
        )
        assert policy["log_probs"][number].sum().item() == pytest.approx(
            logprob(aligned, preference, preference.chosen), abs=1e-3
        )


def test_the_reference_does_not_move_while_the_projector_does(tmp_path):
    trainer, _, batch = first_loss(tmp_path / "x", PROJECTOR)
    inputs = {key: value for key, value in batch.items() if "owner" not in key}
    before = trainer._reference(inputs)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if COPY in name:
                weight.mul_(1.5)
    assert torch.equal(trainer._reference(inputs), before)
    moved = trainer.forward(trainer.model, inputs)["log_probs"].sum(1)
    assert (moved - before).abs().min() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trained_projector_is_loaded_with_its_adapter(once, dtype):
    """In the place of the model's own, in any number format."""
    base, aligned = tiny(dtype=dtype), tiny(once, dtype=dtype)
    pixels = base.image_inputs([base.encode_image(preferences(base, 1)[0].load())])
    seen = [vlm.model.get_image_features(**pixels).pooler_output[0] for vlm in (base, aligned)]
    projector = aligned.model.model.multi_modal_projector
    tower = aligned.model.model.vision_tower(pixels["pixel_values"], output_hidden_states=True)
    saved = weights(once)
    direct = tower.hidden_states[-1][0, 1:].float()
    for layer in ("linear_1", "linear_2"):
        key = f"base_model.model.model.multi_modal_projector.{layer}"
        direct = direct @ saved[f"{key}.weight"].T + saved[f"{key}.bias"]
        direct = torch.nn.functional.gelu(direct) if layer == "linear_1" else direct
    near = 1e-4 if dtype == "float32" else 0.05
    assert (seen[1].float() - direct).abs().max() < near * direct.abs().max()
    assert (seen[0].float() - direct).abs().max() > (seen[1].float() - direct).abs().max()
    assert type(projector).__name__ == "LlavaMultiModalProjector"


def test_the_projector_has_its_own_learning_rate(tmp_path):
    spec = PROJECTOR.model_copy(update={"projector_learning_rate": 1e-5, "weight_decay": 0.1})
    trainer, _, _ = first_loss(tmp_path / "x", spec)
    trainer.create_optimizer()
    names = {id(p): name for name, p in trainer.model.named_parameters() if p.requires_grad}
    rates, decays = {}, {}
    for group in trainer.optimizer.param_groups:
        for weight in group["params"]:
            rates[names[id(weight)]] = group["lr"]
            decays[names[id(weight)]] = group["weight_decay"]
    assert set(rates) == set(names.values()) and len(rates) == 60
    assert {rate for name, rate in rates.items() if COPY in name} == {1e-5}
    assert {rate for name, rate in rates.items() if COPY not in name} == {1e-3}
    assert {name for name, decay in decays.items() if not decay} == {
        name for name in rates if name.endswith("bias")
    }
    step = [weights(trained(tmp_path / str(rate), changed)[0]) for rate, changed in enumerate(
        (spec, spec.model_copy(update={"projector_learning_rate": None}))
    )]  # fmt: skip
    original = tiny().model.model.multi_modal_projector.linear_1.weight
    key = "base_model.model.model.multi_modal_projector.linear_1.weight"
    slow, fast = ((one[key] - original).abs().max().item() for one in step)
    assert slow == pytest.approx(1e-5, rel=0.1) and fast == pytest.approx(1e-3, rel=0.1)


def test_lora_over_a_quantized_model_is_float32(tmp_path):
    """TRL makes it bfloat16 there: a step of 1e-5 would be lost beside a weight of 0.1."""
    vlm = tiny(dtype="bfloat16")
    vlm.model.is_loaded_in_4bit = True
    trainer = trainer_for(job(vlm, PROJECTOR, placement(tmp_path)), preferences(vlm, 2))
    kinds = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    trainer.forward.close()
    assert kinds == {torch.float32}


def test_half_precision_trains_the_projector_in_float32(tmp_path):
    vlm = tiny(dtype="bfloat16")
    spec = PROJECTOR.model_copy(update={"projector_learning_rate": 1e-5})
    folder, rows = train(job(vlm, spec, placement(tmp_path / "x")), preferences(vlm, 6))
    assert rows[0]["rewards/chosen"] == 0  # policy and reference are exactly equal before
    moved = weights(folder)["base_model.model.model.multi_modal_projector.linear_1.weight"]
    original = tiny(dtype="bfloat16").model.model.multi_modal_projector.linear_1.weight.float()
    change = (moved - original).abs()
    assert moved.dtype == torch.float32 and change.median().item() == pytest.approx(1e-5, rel=0.2)


def test_the_config_names_modules_in_their_order(plain):
    """PEFT keeps them in a set: written as it comes, the file differs by hash seed."""
    config = json.loads((plain / "adapter_config.json").read_text())
    names = config["target_modules"]
    assert names == sorted(names) and len(names) > 5
    assert list(config) == sorted(config)


def test_a_second_round_goes_on_where_the_first_stopped(plain, tmp_path):
    """The reference is the first round's adapter, frozen; one adapter is saved."""
    folder, rows = trained(tmp_path / "x", RECIPE, seed=1, start=plain)
    assert rows[0]["rewards/chosen"] == 0 and rows[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    names = {path.name for path in folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}, "no blank model card"
    first, second = weights(plain), weights(folder)
    assert first.keys() == second.keys()
    assert not any("ref" in name.split(".") for name in second)
    moved = max((first[name] - second[name]).abs().max().item() for name in first)
    assert 1e-4 < moved < 3e-3  # one step of 1e-3 from the first round's adapter
    row = preferences(tiny(), 1)[0]
    learnt = [logprob(tiny(f), row, row.chosen) for f in (None, plain, folder)]
    assert learnt[0] < learnt[1] < learnt[2]


@pytest.mark.parametrize(("reference", "frozen"), [("start", True), ("base", False)])
def test_the_reference_of_a_round_is_the_one_asked_for(plain, tmp_path, reference, frozen):
    trainer, _, batch = first_loss(tmp_path / "x", RECIPE, start=plain, reference=reference)
    inputs = {key: value for key, value in batch.items() if "owner" not in key}
    found = trainer._reference(inputs)[0].item()
    vlm = tiny(plain if frozen else None)
    row = preferences(vlm, 6)[next(iter(trainer.order))]
    assert found == pytest.approx(logprob(vlm, row, row.chosen), abs=1e-3)
    trained_names = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained_names and all(".default." in name for name in trained_names)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if name in trained_names:
                weight.add_(0.01)
    assert trainer._reference(inputs)[0].item() == pytest.approx(found, abs=1e-6)


def test_a_round_with_a_projector_and_one_without(once, plain, tmp_path):
    _, rows = trained(tmp_path / "a", PROJECTOR, start=once)
    assert rows[0]["rewards/chosen"] == 0
    folder, _ = trained(tmp_path / "b", PROJECTOR, start=plain)  # it begins at the original
    assert any("projector" in name for name in weights(folder))
    with pytest.raises(StageError, match="train_projector"):
        trained(tmp_path / "c", RECIPE, start=once)


@pytest.mark.parametrize("change", [{"lora_rank": 16}, {"lora_alpha": 8}])
def test_an_adapter_of_another_shape_is_refused(plain, tmp_path, change):
    [name] = change
    with pytest.raises(StageError, match=f"dpo.{name}={change[name]}"):
        trained(tmp_path / "x", RECIPE.model_copy(update=change), start=plain)


def test_an_adapter_of_other_modules_is_refused(plain, tmp_path):
    for modules in (("q_proj",), ("q_proj", "v_proj")):
        spec = RECIPE.model_copy(update={"lora_modules": modules})
        with pytest.raises(StageError, match="lora_modules"):
            trained(tmp_path / "x", spec, start=plain)


@slow_but("gemma3", "internvl3", "llava15", "qwen3_vl", "smolvlm2")
def test_every_family_s_projector_is_found_and_trains(name, tmp_path, monkeypatch):
    """In half precision, with checkpointing; policy and reference are equal before."""
    if importlib.util.find_spec("num2words") is None:
        from transformers.models.smolvlm import processing_smolvlm

        monkeypatch.setattr(processing_smolvlm, "num2words", str)
    spec = build(name, tmp_path / name)
    machine = Machine(device="cpu", dtype="bfloat16")
    vlm = load(spec, machine)
    assert vlm.projector_modules() == EXPECTED[name]
    recipe = PROJECTOR.model_copy(update={"batch_size": 3, "lora_rank": 4})
    place = placement(tmp_path / "x", gradient_checkpointing=True)
    folder, rows = train(job(vlm, recipe, place), preferences(vlm, 3, (1, 2)))
    assert rows[0]["rewards/chosen"] == 0 and rows[0]["rewards/rejected"] == 0
    saved = {key.removeprefix("base_model.model.") for key in weights(folder)}
    for module in EXPECTED[name]:
        assert any(key.startswith(f"{module}.") for key in saved)
    base, again = load(spec, machine), load(spec, machine, folder)
    [row] = preferences(base, 1)
    assert logprob(again, row, row.chosen) != logprob(base, row, row.chosen)
