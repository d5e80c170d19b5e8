"""A tensor that says that it lies on a CUDA device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .device import FakeDevice


class CudaTensor(torch.Tensor):
    """``elem`` is what it stands for: a tensor on the CPU (``honest.py``), or one on torch's meta
    device, without values (``meta.py``). Operators go to the ``device`` that is running."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device_running: FakeDevice | None = None
    elem: torch.Tensor
    known: torch.Tensor | None
    """Its values, where they came from the CPU and are few."""

    @staticmethod
    def __new__(
        cls, elem: torch.Tensor, index: int = 0, known: torch.Tensor | None = None
    ) -> CudaTensor:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=torch.device("cuda", index),
            requires_grad=elem.requires_grad,
        )
        made.elem = elem
        made.known = known
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if cls.device_running is None:
            raise RuntimeError("a tensor of a fake GPU outlived it")
        return cls.device_running.run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"CudaTensor({self.elem!r}, device='{self.device}')"

    # What torch does in C++ with the bytes themselves

    def tolist(self) -> Any:
        assert self.device_running is not None
        self.device_running.ledger.wait("tolist")
        return self.device_running.read(self).tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.elem.untyped_storage()

    def data_ptr(self) -> int:
        return self.elem.data_ptr()

    @property
    def data(self) -> Any:
        return self.detach()

    @data.setter
    def data(self, new: Any) -> None:
        if not isinstance(new, CudaTensor):
            raise RuntimeError(f"the data of a tensor on {self.device} became one on {new.device}")
        torch.Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.elem, self.known = new.elem, new.known

    # Copies, also of another process: a file holds the values

    def __deepcopy__(self, memo: Any) -> Any:
        copy: Any = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copy._is_param = True
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.elem.detach().__reduce_ex__(protocol)

    # Which lets Module.to keep a parameter the object that it is

    def __tensor_flatten__(self) -> Any:
        return ["elem"], self.device.index

    @staticmethod
    def __tensor_unflatten__(elem: Any, index: Any, size: Any, stride: Any) -> CudaTensor:
        return CudaTensor(elem["elem"], index)


def attention(query: Any, *args: Any, **options: Any) -> Any:
    """In place of ``torch.nn.functional.scaled_dot_product_attention``, which chooses a kernel of
    the device in C++."""
    if isinstance(query, CudaTensor) and query.device_running is not None:
        return query.device_running.attention(query, *args, **options)
    return torch._C._nn.scaled_dot_product_attention(query, *args, **options)


def item(tensor: Any) -> Any:
    """A number that C++ reads for itself, as ``torch.tensor`` does of a list with tensors in it."""
    assert isinstance(tensor, CudaTensor) and tensor.device_running is not None
    tensor.device_running.ledger.wait("item")
    return tensor.device_running.read(tensor).item()
