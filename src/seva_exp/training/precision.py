"""Mixed precision: what is trained and its optimizer states are float32, the forward pass computes
in the model's own number format (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper


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
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False


def projectors(model: PeftModel) -> list[ModulesToSaveWrapper]:
    """What is trained as a whole: the original modules with their copies."""
    return [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
