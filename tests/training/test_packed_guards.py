"""What would be wrong without an error is refused or seen: each test fails when its guard goes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from seva_exp import Machine, StageError
from seva_exp.models.vlm import load
from seva_exp.training import DpoTraining
from seva_exp.training import dpo as dpo_module
from seva_exp.training import forward as forward_module
from seva_exp.training import packed_attention as shared_attention
from seva_exp.training.dpo import trainer_for
from seva_exp.training.forward import PackedForward, PlainForward
from seva_exp.training.packed import PackedCollator
from seva_exp.training.vision import FeatureCache

from ..models import families
from .steps import prepared
from .tools import job, placement, preferences, tiny


def spec(fast: str = "auto") -> DpoTraining:
    return DpoTraining(lora_rank=4, batch_size=4, fast=fast)


def taken(vlm, rows, work, fast: str = "auto"):
    """The way that is taken, and what was said of it."""
    said: list[str] = []
    place = placement(work, warn=said.append)
    return trainer_for(job(vlm, spec(fast), place), rows).forward, said


def assert_falls_back(vlm_of, rows, work, why: str) -> None:
    """``auto`` falls back with one line, ``on`` is an error with the same words."""
    way, said = taken(vlm_of(), rows, work)
    assert isinstance(way, PlainForward)
    [line] = said
    assert why in line and "\n" not in line
    with pytest.raises(StageError, match=r"dpo\.fast=on") as error:
        taken(vlm_of(), rows, work, "on")
    assert why in str(error.value)


def test_auto_takes_the_packed_sequence_and_says_nothing(tmp_path):
    vlm = tiny()
    way, said = taken(vlm, preferences(vlm, 3), tmp_path)
    assert isinstance(way, PackedForward) and said == []
    vlm = tiny()
    way, said = taken(vlm, preferences(vlm, 3), tmp_path, "off")
    assert isinstance(way, PlainForward) and said == []


@pytest.mark.parametrize(
    ("name", "dtype", "n"),
    [
        ("llava_sliding", "float32", 3),
        ("llava_sliding", "bfloat16", 1),
        ("gemma3", "float32", 3),
        ("paligemma2", "float32", 3),
    ],
)
def test_naive_masks_are_seen_on_the_first_batch(name, dtype, n, tmp_path, monkeypatch):
    """Windows and blocks of tokens that see each other, both forgotten: wrong by tenths of a nat,
    without any error; by 0.026 a token for the bfloat16 one, which is compared in float32."""
    model = families.build(name, tmp_path / "model")
    machine = Machine(device="cpu", dtype=dtype)

    def naive(shared, window, device):
        prompts = [replace(p, blocks=()) for p in shared.prompts]
        return [(None, shared_attention.answer_mask(prompt, None, device)) for prompt in prompts]

    built = partial(load, model, machine)
    rows = preferences(built(), n, (1, 2))
    assert isinstance(taken(built(), rows, tmp_path)[0], PackedForward)
    monkeypatch.setattr(shared_attention, "masks_of", naive)
    assert_falls_back(built, rows, tmp_path, "off the plain rows")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_answers_one_position_too_far_are_seen(dtype, tmp_path, monkeypatch):
    """The mildest error that we know of: 0.009 nats per root of a token, which in half precision
    would pass for rounding."""
    real = PackedCollator._pack

    def shifted(*arguments):
        row, start = real(*arguments), 0
        for prompt in row.prompts:
            end = start + prompt.length + prompt.fed
            row.positions[:, start + prompt.length : end] += 1
            start = end
        return row

    monkeypatch.setattr(PackedCollator, "_pack", shifted)
    model = families.build("llava_sliding", tmp_path / "model")
    built = partial(load, model, Machine(device="cpu", dtype=dtype))
    assert_falls_back(built, preferences(built(), 3, (1, 2)), tmp_path, "off the")


def test_positions_that_do_not_start_again_are_seen(tmp_path, monkeypatch):
    real = PackedCollator._pack

    def running_on(*arguments):
        row = real(*arguments)
        row.positions = torch.arange(row.ids.shape[1])[None]
        return row

    monkeypatch.setattr(PackedCollator, "_pack", running_on)
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


def test_unproven_models_are_refused(tmp_path):
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
        (
            lambda config: setattr(config.get_text_config(), "attention_dropout", 0.1),
            "attention_dropout=0.1",
        ),
        (lambda config: setattr(config.vision_config, "attention_dropout", 0.2), "dropout=0.2"),
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


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_cache_of_keys_and_values(checkpointing, tmp_path, monkeypatch):
    """Under checkpointing it would be dropped in silence, and answers would not see their prompt.
    One that is asked for all the same is refused."""
    vlm, caches = tiny(), []
    trainer = prepared(vlm, preferences(vlm, 2), spec("on"), tmp_path, checkpointing=checkpointing)
    for layer in vlm.model.get_decoder().layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: caches.append(kwargs.get("past_key_values")),
            with_kwargs=True,
        )
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    trainer.compute_loss(trainer.model, batches[0]).backward()
    assert len(caches) >= len(vlm.model.get_decoder().layers) and set(caches) == {None}
    vlm.model.eval()  # else checkpointing takes it away before it is seen
    vlm.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, kwargs | {"use_cache": True}), with_kwargs=True
    )
    with pytest.raises(AssertionError, match="in silence"):
        trainer.compute_loss(trainer.model, batches[0])
    assert caches[-1] is not None


def hooks_of(vlm) -> int:
    """How many hooks of ours the model's modules have."""
    found = [
        hook
        for module in vlm.model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    return sum(isinstance(getattr(hook, "__self__", None), PackedForward) for hook in found)


def test_the_model_is_left_as_it_was(tmp_path):
    vlm = tiny()
    way = trainer_for(job(vlm, spec("on"), placement(tmp_path)), preferences(vlm, 2)).forward
    assert vlm.model.get_decoder().config._attn_implementation == shared_attention.NAME
    assert hooks_of(vlm) == 9
    way.close()
    assert vlm.model.get_decoder().config._attn_implementation == "sdpa"
    assert hooks_of(vlm) == 0


def test_a_number_that_is_not_one_is_no_agreement():
    assert forward_module._too_far(0.1, 0.1) == ""
    assert forward_module._too_far(0.11, 0.1)
    assert forward_module._too_far(float("nan"), 0.1)


def test_an_error_in_the_comparison_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    def out_of_memory(self, pictures):
        raise torch.OutOfMemoryError

    vlm = tiny()
    monkeypatch.setattr(FeatureCache, "features", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        trainer_for(job(vlm, spec("auto"), placement(tmp_path)), preferences(vlm, 2))
    assert vlm.model.get_decoder().config._attn_implementation == "sdpa"
    assert hooks_of(vlm) == 0


def test_without_memory_for_float32_the_ways_are_compared_as_the_model_is(tmp_path, monkeypatch):
    """Which still sees gross mistakes; and no features of the comparison are kept."""

    def no_room(model, layers):
        raise torch.OutOfMemoryError

    built = partial(tiny, dtype="bfloat16")
    place = placement(tmp_path, vision_cache=2**30)
    way = trainer_for(job(built(), spec("on"), place), preferences(built(), 2)).forward
    assert isinstance(way, PackedForward) and place.features == {}
    monkeypatch.setattr(forward_module, "computed_in_float32", no_room)
    way, warned = taken(built(), preferences(built(), 3), tmp_path, "on")
    assert isinstance(way, PackedForward)
    [said] = warned
    assert "in bfloat16" in said and "machine.train_batch_size" in said
    monkeypatch.setattr(shared_attention, "answer_mask", lambda prompt, window, device: torch.eye(
        prompt.length + prompt.fed, dtype=torch.bool)[prompt.length :])  # fmt: skip
    way, warned = taken(built(), preferences(built(), 3), tmp_path)
    assert isinstance(way, PlainForward) and "off the plain rows" in warned[-1]


def test_how_far_apart_is_a_mean_square_over_tokens():
    one, other = torch.tensor([-3.0, -7.0]), torch.tensor([-3.3, -6.6])
    far = forward_module.apart(one, other, torch.tensor([1, 4]))
    assert far == pytest.approx(((0.09 + 0.16) / 5) ** 0.5)
