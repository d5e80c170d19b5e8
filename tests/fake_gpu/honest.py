"""The honest device: its tensors hold real numbers, computed on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from .device import FakeDevice
from .operators import Operator
from .tensor import CudaTensor

WIDER = ("mm", "addmm", "bmm", "baddbmm")
"""Products that cuBLAS can give in another number format than their operands'."""


class HonestDevice(FakeDevice):
    """What a run computes here it computes on the CPU, to rounding."""

    beneath = torch.device("cpu")

    def place(self, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    def read(self, tensor: CudaTensor) -> torch.Tensor:
        return tensor.elem.detach()

    def compute(self, func: Any, of: Operator, args: Any, kwargs: Any) -> Any:
        if of.name in WIDER and func._overloadname in ("dtype", "dtype_out"):
            return _wider(of.name, args, kwargs)
        return func(*args, **kwargs)

    def attend(self, kernel: str, query: Any, key: Any, value: Any, mask: Any, options: Any) -> Any:
        """By the kernel that the CPU would take."""
        inner = [None if x is None else x.elem for x in (query, key, value, mask)]
        if torch._fused_sdp_choice(*inner, **options):
            options = {k: v for k, v in options.items() if k != "enable_gqa"}
            flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            if mask is not None and mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
            return flash(query, key, value, attn_mask=mask, **options)[0]
        return torch._C._nn.scaled_dot_product_attention(query, key, value, mask, **options)


def _wider(name: str, args: Any, kwargs: Any) -> Any:
    """Half precision in, float32 out, which a CPU does not know."""
    out = kwargs.pop("out", None)
    scales = {key: value for key, value in kwargs.items() if key in ("alpha", "beta")}
    tensors = [value.float() for value in args if isinstance(value, torch.Tensor)]
    found = getattr(torch, name)(*tensors, **scales)
    return found if out is None else out.copy_(found)
