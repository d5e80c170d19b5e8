"""What would be wrong without an error is refused or seen: each test fails when its guard goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seva_exp import Machine, StageError
from seva_exp.models.vlm import load
from seva_exp.training import DpoTraining, shared_attention
from seva_exp.training import dpo as dpo_module
from seva_exp.training import forward as forward_module
from seva_exp.training.dpo import trainer_for
from seva_exp.training.forward import PlainForward, SharedForward

from ..models import families
from .steps import prepared
from .tools import placement, preferences, tiny


def spec(fast: str = "auto") -> DpoTraining:
    return DpoTraining(lora_rank=4, batch_size=4, fast=fast)


def taken(vlm, rows, work, fast: str = "auto"):
    """The way that is taken, and what was said of it."""
    said: list[str] = []
    place = placement(work, warn=said.append)
    return trainer_for(vlm, rows, spec(fast), place, 0).forward, said


def assert_falls_back(vlm_of, rows, work, why: str) -> None:
    """``auto`` falls back with one line, ``on`` is an error with the same words."""
    way, said = taken(vlm_of(), rows, work)
    assert isinstance(way, PlainForward)
    [line] = said
    assert why in line and "\n" not in line
    with pytest.raises(StageError, match=r"dpo\.fast=on") as error:
        taken(vlm_of(), rows, work, "on")
    assert why in str(error.value)


def test_auto_takes_the_shared_row_and_says_nothing(tmp_path):
    vlm = tiny()
    way, said = taken(vlm, preferences(vlm, 3), tmp_path)
    assert isinstance(way, SharedForward) and said == []
    vlm = tiny()
    way, said = taken(vlm, preferences(vlm, 3), tmp_path, "off")
    assert isinstance(way, PlainForward) and said == []


@pytest.mark.parametrize("name", ["llava_sliding", "gemma3", "paligemma2"])
def test_naive_masks_are_seen_on_the_first_batch(name, tmp_path, monkeypatch):
    """Windows and blocks of tokens that see each other, both forgotten: wrong by tenths of a nat,
    without any error."""
    model = families.build(name, tmp_path / "model")

    def naive(shared, window, device):
        prompts = [replace(p, blocks=()) for p in shared.prompts]
        return [(None, shared_attention.answer_mask(prompt, None, device)) for prompt in prompts]

    monkeypatch.setattr(shared_attention, "masks_of", naive)
    machine = Machine(device="cpu", dtype="float32")
    rows = preferences(load(model, machine), 3, (1, 2))
    assert_falls_back(lambda: load(model, machine), rows, tmp_path, "off the plain rows")


def test_positions_that_do_not_start_again_are_seen(tmp_path, monkeypatch):
    from seva_exp.training.shared_row import SharedCollator

    real = SharedCollator._pack

    def running_on(*arguments):
        row = real(*arguments)
        row.positions = torch.arange(row.ids.shape[1])[None]
        return row

    monkeypatch.setattr(SharedCollator, "_pack", running_on)
    rows = preferences(tiny(), 3)
    assert_falls_back(tiny, rows, tmp_path, "off the plain rows")


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flex_attention"])
def test_attention_that_would_split_the_row_is_refused(kernel, tmp_path):
    """Flash attention takes positions that start again for several packed sequences."""

    def loaded():
        vlm = tiny()
        vlm.model.config.get_text_config()._attn_implementation = kernel
        return vlm

    assert_falls_back(loaded, preferences(tiny(), 2), tmp_path, kernel)


def test_unproven_families_are_refused(tmp_path):
    def of(change):
        vlm = tiny()
        change(vlm.model.config)
        return vlm

    rows = preferences(tiny(), 2)
    for change, why in (
        (lambda config: setattr(config, "model_type", "new_vlm"), "new_vlm is not proven"),
        (
            lambda config: setattr(config.get_text_config(), "model_type", "qwen3_5_text"),
            "qwen3_5_text is not proven",
        ),
    ):
        assert_falls_back(lambda change=change: of(change), rows, tmp_path, why)


def test_lora_in_the_vision_tower_is_refused(tmp_path, monkeypatch):
    """The features that are kept would be stale after a step."""
    real = dpo_module.lora_config

    def everywhere(*arguments):
        config = real(*arguments)
        config.target_modules = "all-linear"
        return config

    monkeypatch.setattr(dpo_module, "lora_config", everywhere)
    assert_falls_back(tiny, preferences(tiny(), 2), tmp_path, "is trained, so the pictures")


def tower_backwards(fast: str, work) -> int:
    """How often a linear layer of the frozen tower takes part in the backward pass."""
    vlm, calls = tiny(), []
    trainer = prepared(vlm, preferences(vlm, 2), spec(fast), work, checkpointing=True)
    vlm.model.enable_input_require_grads()  # as the trainer does with PEFT and checkpointing
    for module in vlm.model.base_model.vision_tower.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_full_backward_hook(lambda *_: calls.append(1))
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    trainer.compute_loss(trainer.model, batches[0]).backward()
    return len(calls)


def test_checkpointing_does_not_go_back_through_the_frozen_tower(tmp_path):
    assert tower_backwards("off", tmp_path / "off") > 0  # as stock TRL does
    assert tower_backwards("on", tmp_path / "on") == 0


def test_no_cache_of_keys_and_values_under_checkpointing(tmp_path):
    """It would be dropped in silence, and answers would not see their prompt."""
    vlm, caches = tiny(), []
    trainer = prepared(vlm, preferences(vlm, 2), spec("on"), tmp_path, checkpointing=True)
    for layer in vlm.model.get_decoder().layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: caches.append(kwargs.get("past_key_values")),
            with_kwargs=True,
        )
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    trainer.compute_loss(trainer.model, batches[0]).backward()
    assert len(caches) > len(vlm.model.get_decoder().layers) and set(caches) == {None}


def test_the_model_is_left_as_it_was(tmp_path):
    vlm = tiny()
    way = trainer_for(vlm, preferences(vlm, 2), spec("on"), placement(tmp_path), 0).forward

    def hooks() -> int:
        found = [
            hook
            for module in vlm.model.modules()
            for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        ]
        return sum(getattr(hook, "__self__", None) is way for hook in found)

    assert vlm.model.get_decoder().config._attn_implementation == shared_attention.NAME
    assert hooks() == 9
    way.close()
    assert vlm.model.get_decoder().config._attn_implementation == "sdpa"
    assert hooks() == 0


def test_a_number_that_is_not_one_is_no_agreement():
    far = (torch.tensor([1.0]), torch.tensor([1]))
    nan = (torch.tensor([float("nan")]), torch.tensor([1]))
    assert forward_module._difference(far, far, torch.float32) == ""
    assert forward_module._difference(far, nan, torch.float32)
    assert forward_module._difference(nan, nan, torch.float32)
