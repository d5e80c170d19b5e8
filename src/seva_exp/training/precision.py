"""Mixed precision: what is trained and its optimizer states are float32, the forward pass computes
in the model's own number format (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel

from seva_exp.training.peft_private import keep_input_dtype, projectors


def mixed_precision(device: str | torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Around a forward pass on ``device``: matrix products in ``dtype``, also where weights are
    float32. No weight's copy is kept for a second use, since a step uses each adapter weight once:
    at rank 1024 of a 7B model these copies would take 4.8 GiB."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype, cache_enabled=False)


def full_precision(device: str | torch.device) -> AbstractContextManager[Any]:
    """Inside of ``mixed_precision``: operations take the number formats that they are given."""
    return torch.autocast(torch.device(device).type, enabled=False)


def keep_in_float32(model: PeftModel) -> None:
    """In half precision AdamW's small steps would round to nothing: PEFT keeps LoRA's weights in
    float32, except that TRL makes them bfloat16 over a quantized model; we keep all that is
    trained in float32. A projector's original is converted too (which is exact), so that policy
    and reference are the same function before the first step.

    The model must then be called under ``mixed_precision``: PEFT's own casts of a LoRA layer's
    input to float32, and with them float32 products, are switched off.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if model.get_base_model().dtype == torch.float32:
        return
    for module in projectors(model):
        module.float()
    keep_input_dtype(model)


@contextmanager
def computed_in_float32(
    model: torch.nn.Module, layers: Sequence[torch.nn.Module]
) -> Iterator[None]:
    """Forward passes without gradients compute in float32, whatever format the weights have. Those
    of the decoder's ``layers`` are converted (which is exact) layer by layer while it runs, all
    others at once: beside the model there must be room for vision tower, embeddings, LM head and
    one layer in float32. Weights of 4 bits stay what they are."""
    inside = {id(weight) for layer in layers for weight in _halves(layer)}
    widened = [_Widened(_halves(layer)) for layer in layers]
    rest = _Widened([weight for weight in _halves(model) if id(weight) not in inside])
    hooks = [
        hook
        for layer, own in zip(layers, widened, strict=True)
        for hook in (
            layer.register_forward_pre_hook(lambda *_, own=own: own.widen()),
            layer.register_forward_hook(lambda *_, own=own: own.narrow(), always_call=True),
        )
    ]
    try:
        with _no_tf32(), torch.no_grad(), full_precision(next(model.parameters()).device):
            rest.widen()
            yield
    finally:
        rest.narrow()
        for hook in hooks:
            hook.remove()


@contextmanager
def _no_tf32() -> Iterator[None]:
    """Float32 with all its digits: convolutions on a GPU have 10 of 23 bits by default, and matrix
    products where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 is set, as in NVIDIA's containers."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    convolutions = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=False, allow_tf32=False
    )
    try:
        with convolutions:
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Widened:
    """Weights that are float32 in between."""

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self._weights = weights
        self._kept: list[torch.Tensor] = []

    def widen(self) -> None:
        for weight in self._weights:
            self._kept.append(weight.data)
            weight.data = weight.data.float()

    def narrow(self) -> None:
        for weight, kept in zip(self._weights, self._kept, strict=False):  # memory may run out
            weight.data = kept
        self._kept = []


def _halves(module: torch.nn.Module) -> list[torch.Tensor]:
    """Weights and buffers in half precision, each once."""
    own = {id(value): value for value in (*module.parameters(), *module.buffers())}
    return [v for v in own.values() if v.dtype in (torch.float16, torch.bfloat16)]
