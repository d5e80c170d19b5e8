"""The meta device: its tensors have shapes and no values, so that a 13B model fits and a step of it
takes seconds. What the host asks for is made up: 0.0, 7 and True."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .device import FakeDevice
from .operators import Operator, aten
from .tensor import CudaTensor

NUMBER = 7
"""Each whole number: a token of an answer, which does not end it."""


@dataclass(frozen=True)
class _Shape:
    size: Any
    stride: Any
    dtype: torch.dtype


class MetaDevice(FakeDevice):
    """Bytes, operations, kernels and waits are those of the real run, as long as what is computed
    does not depend on values that were made up."""

    beneath = torch.device("meta")

    def __init__(self, gib: float = 80.0) -> None:
        super().__init__(gib)
        self._shapes: dict[Any, Any] = {}

    def place(self, value: torch.Tensor) -> torch.Tensor:
        return value.to("meta")

    def read(self, tensor: CudaTensor) -> torch.Tensor:
        if tensor.known is not None:
            return tensor.known
        return torch.full(tensor.shape, _made_up(tensor.dtype), dtype=tensor.dtype)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Where the size of what comes out is a matter of values, it is the largest."""
        if func is aten._local_scalar_dense.default and type(args[0]) is CudaTensor:
            self.ledger.wait("item")
            return self.read(args[0]).item()
        if func is aten.equal.default and any(type(x) is CudaTensor for x in args):
            self.ledger.wait("equal")
            return True
        if func is aten.repeat_interleave.Tensor and type(args[0]) is CudaTensor:
            return self._repeated(func, args, kwargs)
        if func is aten.index.Tensor and type(args[0]) is CudaTensor:
            masks = [i for i in args[1] if i is not None and i.dtype == torch.bool]
            if masks:
                self.ledger.wait("boolean index")
                return args[0].flatten(0, masks[0].dim() - 1)
        return super().run(func, args, kwargs)

    def _repeated(self, func: Any, args: Any, kwargs: Any) -> Any:
        if kwargs.get("output_size") is None:
            self.ledger.wait("repeat_interleave")
            assert args[0].known is not None, "repeats that are not known"
            kwargs = {**kwargs, "output_size": int(args[0].known.sum())}
        return super().run(func, args, kwargs)

    def compute(self, func: Any, of: Operator, args: Any, kwargs: Any) -> Any:
        """Of equal shapes comes an equal shape, which is worked out once; what an operator changes
        in place has no values to change."""
        if of.view:
            return func(*args, **kwargs)
        key = func, tuple(map(_key, args)), tuple((k, _key(v)) for k, v in kwargs.items())
        if key not in self._shapes:
            out = func(*args, **kwargs)
            self._shapes[key] = None if of.returns else _shapes(out)
            return out
        return _made(self._shapes[key])

    def attend(self, kernel: str, query: Any, key: Any, value: Any, mask: Any, options: Any) -> Any:
        causal, scale = options["is_causal"], options["scale"]
        if kernel == "flash":
            flash = aten._scaled_dot_product_flash_attention
            return flash(query, key, value, 0.0, causal, False, scale=scale)[0]
        if kernel == "efficient":
            bias = None if mask is None else _bias(mask, query, key)
            efficient = aten._scaled_dot_product_efficient_attention
            keep = torch.is_grad_enabled()
            return efficient(query, key, value, bias, keep, 0.0, causal, scale=scale)[0]
        return torch._C._nn.scaled_dot_product_attention(query, key, value, mask, **options)


def _bias(mask: Any, query: Any, key: Any) -> Any:
    """What the kernel adds to the scores [B, H, Q, K], as torch makes it of a mask."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
    return mask.expand(*query.shape[:3], key.shape[2])


def _made_up(dtype: torch.dtype) -> Any:
    if dtype.is_floating_point:
        return 0.0
    return True if dtype == torch.bool else NUMBER


def _key(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.device.type
    if isinstance(value, (list, tuple)):
        return tuple(map(_key, value))
    return type(value), value


def _shapes(value: Any) -> Any:
    """Of tensors their sizes, strides and formats."""
    if isinstance(value, torch.Tensor):
        return _Shape(value.shape, value.stride(), value.dtype)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_shapes, value))
    return value


def _made(value: Any) -> Any:
    """Tensors of these shapes."""
    if isinstance(value, _Shape):
        return torch.empty_strided(value.size, value.stride, dtype=value.dtype, device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)(map(_made, value))
    return value
