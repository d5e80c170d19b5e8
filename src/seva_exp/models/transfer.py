"""From main memory to the model's device, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def put(value: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """``value`` on ``device``. A copy to CUDA comes from page-locked memory, or the host would wait
    for all that the device still has to do; torch keeps that memory until the copy is done."""
    if device.type == "cuda" and value.is_cpu:
        value = value.pin_memory().to(device, non_blocking=True)
    return value.to(device, dtype or value.dtype)
