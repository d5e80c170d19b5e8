"""Mixed precision: weights and optimizer in float32, matrix products in the model's own format."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seva_exp import Machine
from seva_exp.core.interfaces import Placement
from seva_exp.models.vlm import load
from seva_exp.training import dpo, forward, precision, steps
from seva_exp.training.dpo import trainer_for
from seva_exp.training.finetune import fine_tune
from seva_exp.training.forward import forward_for
from seva_exp.training.reference import scoring
from seva_exp.training.spec import DpoTraining, SftTraining

from ..models import families
from .test_finetune import samples
from .tools import job, picture, placement, preferences, tiny, train

RECIPE = DpoTraining(
    batch_size=4, epochs=1, learning_rate=1e-3, lora_rank=8, lora_alpha=16, schedule="constant"
)
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear", "matmul"}


class Products(TorchDispatchMode):
    """Counts operations (multiply-adds times 2) of matrix products by number format."""

    def __init__(self) -> None:
        super().__init__()
        self.flop: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._schema.name.split("::")[1] in PRODUCTS:
            left = [x for x in args if isinstance(x, torch.Tensor)][-2]
            self.flop[left.dtype] += 2 * out.numel() * left.shape[-1]
        return out

    @property
    def float32(self) -> float:
        """The share of them that is computed in float32."""
        return self.flop[torch.float32] / sum(self.flop.values())


def place(work: Path, **changes) -> Placement:
    return placement(work, train_batch_size=2, **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"train_projector": True}, {"fast": "off"}, {"loss": {"sigmoid": 1.0, "image": 1.0}}],
    ids=["lora", "projector", "plain_rows", "image"],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_half_precision_step_multiplies_in_half_precision(tmp_path, changes, checkpointing):
    """Forward and backward: LoRA's products and a trained projector's too."""
    vlm = tiny(dtype="bfloat16")
    spec = RECIPE.model_copy(update={"lora_rank": 64, **changes})
    rows = preferences(vlm, 4, views=(1,) if "loss" in changes else (0,))
    where = place(tmp_path, gradient_checkpointing=checkpointing)
    trainer = trainer_for(job(vlm, spec, where), rows)
    with Products() as seen, closing(trainer.forward):
        trainer.train()
    assert seen.flop[torch.bfloat16] > 0
    assert seen.float32 < 0.01


def test_so_does_fine_tuning(tmp_path):
    vlm = tiny(dtype="bfloat16")
    for number in range(4):
        picture(number).save(tmp_path / f"{number}.png")
    spec = SftTraining(
        batch_size=4, epochs=1, learning_rate=1e-3, lora_rank=64, lora_alpha=128, warmup_ratio=0.0
    )
    with Products() as seen:
        fine_tune(job(vlm, spec, place(tmp_path)), samples(tmp_path, 4), tmp_path)
    assert seen.flop[torch.bfloat16] > 0
    assert seen.float32 < 0.01


def test_the_reference_of_a_later_round_too(tmp_path):
    """It is scored with an adapter, as the policy is."""
    vlm = tiny(dtype="bfloat16")
    start, _ = train(job(vlm, RECIPE, place(tmp_path)), preferences(vlm, 4))
    vlm = tiny(dtype="bfloat16")
    rows = preferences(vlm, 4)
    with scoring(vlm, start) as model:
        way = forward_for(vlm, model, rows, "on", place(tmp_path))
        batch = way.collator(rows)([{"row": 0}, {"row": 1}])
        with Products() as seen, closing(way):
            forward.scored(way, model, batch, place(tmp_path), torch.bfloat16)
    assert seen.flop[torch.bfloat16] > 0
    assert seen.float32 < 0.01


def test_weights_gradients_and_optimizer_are_float32(tmp_path):
    vlm = tiny(dtype="bfloat16")
    trainer = trainer_for(job(vlm, RECIPE, place(tmp_path)), preferences(vlm, 4))
    grads: set[torch.dtype] = set()
    for weight in (w for w in trainer.model.parameters() if w.requires_grad):
        weight.register_post_accumulate_grad_hook(lambda w: grads.add(w.grad.dtype))
    trainer.train()
    trainer.forward.close()
    states = {
        value.dtype
        for state in trainer.optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    }
    weights = {w.dtype for w in trainer.model.parameters() if w.requires_grad}
    assert grads == states == weights == {torch.float32}
    assert trainer.model.get_base_model().dtype == torch.bfloat16


def losses(work: Path, dtype: str) -> list[float]:
    """Of three epochs of two steps each."""
    vlm = tiny(dtype=dtype)
    spec = RECIPE.model_copy(update={"epochs": 3, "batch_size": 3})
    _, rows = train(job(vlm, spec, place(work)), preferences(vlm, 6))
    return [row["loss"] for row in rows]


def test_losses_are_equal_to_rounding(tmp_path, monkeypatch):
    """bfloat16's mixed precision against LoRA's products in float32 over a bfloat16 model, and
    against float32 throughout. It learns: the loss falls by more than ten times the difference."""
    mixed, full = losses(tmp_path / "mixed", "bfloat16"), losses(tmp_path / "full", "float32")

    def apart_from_lora(model):
        original(model)
        for module in model.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = True

    original = precision.keep_in_float32
    monkeypatch.setattr(dpo, "keep_in_float32", apart_from_lora)
    for module in (forward, steps):
        monkeypatch.setattr(
            module, "mixed_precision", lambda device, dtype: precision.full_precision(device)
        )
    apart = losses(tmp_path / "apart", "bfloat16")
    assert mixed != apart  # or the comparison compares nothing
    assert mixed == pytest.approx(apart, abs=0.02)
    assert mixed == pytest.approx(full, abs=0.02)
    assert full[0] - full[-1] > 0.2


def test_float32_is_left_alone():
    with precision.mixed_precision("cpu", torch.float32):
        assert not torch.is_autocast_enabled("cpu")
    with precision.mixed_precision("cpu", torch.bfloat16):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert not torch.is_autocast_cache_enabled()
        with precision.full_precision("cpu"):
            assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", [*families.FAMILIES])
def test_a_half_precision_model_can_compute_in_float32(name, tmp_path, numbers_in_words):
    """It gives the numbers of its weights in float32, also while an adapter is on it, and is the
    same half-precision model again afterwards."""
    spec = families.build(name, tmp_path / "model")
    half, full = (load(spec, Machine(device="cpu", dtype=d)) for d in ("bfloat16", "float32"))
    full.model.load_state_dict(half.model.state_dict())  # rounded to bfloat16
    before = {n: (p.dtype, p.data_ptr()) for n, p in half.model.named_parameters()}
    rows = preferences(half, 2)
    batch = forward.PlainForward(half).collator(rows)([{"row": 0}, {"row": 1}])
    found = []
    for vlm in (half, full):
        layers = vlm.model.get_decoder().layers
        with (
            scoring(vlm, None) as model,
            precision.computed_in_float32(model, layers),
            Products() as seen,
        ):
            given = {
                k: v.to(vlm.model.dtype) if v.is_floating_point() else v for k, v in batch.items()
            }
            way = forward.PlainForward(vlm)
            found.append(forward.scored(way, model, given, place(tmp_path))[0])
        assert seen.float32 == 1
    assert found[0].tolist() == pytest.approx(found[1].tolist(), abs=2e-4)
    assert {n: (p.dtype, p.data_ptr()) for n, p in half.model.named_parameters()} == before


def test_float32_has_all_its_digits_whatever_was_set_before():
    """NVIDIA's containers allow TF32 for matrix products, torch does for convolutions."""
    model = torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    torch.set_float32_matmul_precision("high")
    allowed = torch.backends.cudnn.allow_tf32
    try:
        with precision.computed_in_float32(model, []):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32 == allowed
    finally:
        torch.set_float32_matmul_precision("highest")


def test_of_the_decoder_one_layer_at_a_time_is_float32():
    """Beside a 7B model on a GPU of 24 GB there is no room for all of them."""
    vlm = tiny(dtype="bfloat16")
    layers = vlm.model.get_decoder().layers
    wide: list[list[int]] = []

    def look(*_) -> None:
        kinds = [layer.mlp.gate_proj.weight.dtype for layer in layers]
        wide.append([number for number, kind in enumerate(kinds) if kind == torch.float32])

    for layer in layers:
        layer.mlp.register_forward_pre_hook(look)
    rows = preferences(vlm, 1)
    with scoring(vlm, None) as model, precision.computed_in_float32(model, layers):
        way = forward.PlainForward(vlm)
        forward.scored(way, model, way.collator(rows)([{"row": 0}]), place(Path()))
        assert {w.dtype for w in layers.parameters()} == {torch.bfloat16}  # when none is at work
    assert wide == [[number] for number in range(len(layers))] and len(layers) > 1
