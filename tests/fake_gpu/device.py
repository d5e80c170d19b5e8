"""A CUDA device on top of another one: the rules that a GPU keeps, and what it costs.

``HonestDevice`` (honest.py) computes on the CPU, ``MetaDevice`` (meta.py) only shapes. Both refuse
what CUDA refuses (tensors of two devices, matrix products of two number formats, more memory than
there is) and write into the ledger what it costs (bytes, operations, kernels, and each time the
host waits).
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seva_exp.core import device_memory, gpus

from .graphs import REFUSED, Graph
from .ledger import GIB, Ledger
from .operators import INDEXES, Operator, aten, operator
from .tensor import CudaTensor

STAGED = 64 * 2**10
"""Bytes up to which a copy from pageable memory does not wait, if it need not (CUDA's driver)."""
CONTEXT = int(0.6 * GIB)
"""Bytes that a CUDA context and cuBLAS take."""
FEW = 4096
"""Values that a tensor's ``known`` holds at most."""
SUMS = ("addmm", "baddbmm")
DROPPED = ("pin_memory", "non_blocking")
"""Options that say nothing to the device beneath."""
SAME = ("lift_fresh", "detach", "alias")
"""Whose result is what they were given."""


class FakeDevice(TorchDispatchMode, ABC):
    """``with HonestDevice() as device:`` lets ``cuda`` mean it, in this thread and all that are
    started meanwhile."""

    beneath: torch.device
    """Where the tensors really are."""

    def __init__(self, gib: float = 80.0) -> None:
        super().__init__()
        self.ledger = Ledger(gib * GIB - CONTEXT)
        self._pinned: set[int] = set()

    def __enter__(self) -> Any:
        if CudaTensor.device_running is not self:
            CudaTensor.device_running = self
            _patch(self)
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def settle(self, model: Any) -> None:
        """A model that was made here: its weights need no values."""

    # What the two kinds differ in

    @abstractmethod
    def place(self, value: torch.Tensor) -> torch.Tensor:
        """A copy of a CPU tensor as the device holds it."""

    @abstractmethod
    def read(self, tensor: CudaTensor) -> torch.Tensor:
        """Its values, on the CPU."""

    @abstractmethod
    def compute(self, func: Any, of: Operator, args: Any, kwargs: Any) -> Any:
        """The operator on what the tensors stand for."""

    # An operator

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operator, on the device if one of its tensors is there, or its result will be."""
        tensors = list(_tensors(args))
        if kwargs:
            tensors += _tensors(kwargs.values())
        ours = [x for x in tensors if type(x) is CudaTensor]
        wanted = kwargs.get("device")
        to_us = wanted is not None and torch.device(wanted).type == "cuda"
        if not ours and not to_us:
            if kwargs.get("pin_memory"):
                return self.pin(func(*args, **{**kwargs, "pin_memory": False}))
            return func(*args, **kwargs)
        of = operator(func)
        if of.communicates:
            return self._communicate(func, args, kwargs)
        index = ours[0].device.index if ours else torch.device(wanted).index
        index = torch.cuda.current_device() if index is None else index
        if of.name == "_to_copy" and wanted is not None and bool(ours) != to_us:
            return self._move(args[0], kwargs, index)
        if of.name == "copy_":
            return self._copy(func, *args[:2])
        if len(tensors) > 1:
            self._check(func, of, args, ours, [x for x in tensors if type(x) is not CudaTensor])
        if kind := _read(func, of, args, kwargs):
            self.ledger.wait(kind)
        a = [self._inner(x) for x in args]
        k = {name: self._inner(x) for name, x in kwargs.items() if name not in DROPPED}
        if wanted is not None:
            k["device"] = self.beneath
        out = self.compute(func, of, a, dict(k))
        if graph := Graph.now():
            graph.note(func, of, a, k, out)
        self.ledger.work.kernels += of.kernel
        if of.flop:
            factors = a[1:] if of.name in SUMS else a  # without the summand
            dtype = next(x.dtype for x in factors if isinstance(x, torch.Tensor))
            shaped = [x for x in a if not isinstance(x, torch.dtype)]
            flop = of.flop(*shaped, out_val=out)
            self.ledger.work.flop[str(dtype)[6:]] += flop
            if graph:
                graph.flop[str(dtype)[6:]] += flop
        return self._wrapped(of, args, kwargs, out, index)

    def _inner(self, value: Any) -> Any:
        if type(value) is CudaTensor:
            return value.elem
        if isinstance(value, (list, tuple)):
            return type(value)(self._inner(x) for x in value)
        if isinstance(value, torch.Tensor):
            return self.place(value) if value.dim() else value
        return value

    def _wrapped(self, of: Operator, args: Any, kwargs: Any, out: Any, index: int) -> Any:
        if of.returns:
            given = args[0] if kwargs.get("out") is None else kwargs["out"]
            if type(given) is CudaTensor:
                given.known = None
            return given
        known = args[0].known if of.name in SAME and type(args[0]) is CudaTensor else None

        def wrapped(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(map(wrapped, value))
            if not isinstance(value, torch.Tensor):
                return value
            if not of.view:
                self.ledger.hold(value)
            return CudaTensor(value, index, known)

        return wrapped(out)

    # What CUDA refuses

    def _check(
        self, func: Any, of: Operator, args: Any, ours: Sequence[Any], others: Sequence[Any]
    ) -> None:
        if of.name in INDEXES:
            others = [x for x in others if not self._is_index(x, args[1])]
        self._same_device(func, [*ours, *(x for x in others if x.dim())])
        if of.matrix:
            wider = of.name in SUMS and func._overloadname.startswith("dtype")
            factors = args[1:3] if wider else ours
            dtypes = {x.dtype for x in factors if x.is_floating_point() and x.dim() > 1}
            if len(dtypes) > 1:
                raise RuntimeError(
                    "expected operands of a matrix product to have the same dtype, but found "
                    f"{' and '.join(sorted(map(str, dtypes)))} ({func})"
                )

    @staticmethod
    def _same_device(func: Any, tensors: Sequence[torch.Tensor]) -> None:
        devices = {x.device for x in tensors}
        if len(devices) > 1:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{' and '.join(sorted(map(str, devices)))}! ({func})"
            )

    def _is_index(self, tensor: torch.Tensor, indices: Any) -> bool:
        """An index on the CPU is copied to the device."""
        if not any(tensor is index for index in indices):
            return False
        self.ledger.wait("upload")
        return True

    # Copies between host and device

    def _move(self, source: Any, options: Any, index: int) -> Any:
        dtype = options.get("dtype") or source.dtype
        if type(source) is CudaTensor:
            self.ledger.wait("download")
            return self.read(source).to(dtype, copy=True)
        self._upload(source, bool(options.get("non_blocking")))
        made = self.place(source).to(dtype)
        self.ledger.hold(made)
        few = source.numel() <= FEW and not dtype.is_floating_point
        return CudaTensor(made, index, source.to(dtype, copy=True) if few else None)

    def _upload(self, source: torch.Tensor, non_blocking: bool) -> None:
        if Graph.now():  # which CUDA lets through: it copies what lies there at the replay
            raise RuntimeError(f"{REFUSED} (a copy from main memory)")
        if non_blocking and self._is_pinned(source):
            return
        if non_blocking and source.numel() * source.element_size() <= STAGED:
            return
        self.ledger.wait("upload of pageable memory" if non_blocking else "upload")

    def _copy(self, func: Any, target: Any, source: Any) -> Any:
        ours, theirs = type(target) is CudaTensor, type(source) is CudaTensor
        if ours and theirs:
            self.compute(func, operator(func), (target.elem, source.elem), {})
            if graph := Graph.now():
                graph.note(func, operator(func), (target.elem, source.elem), {}, target.elem)
            self.ledger.work.kernels += 1
        elif ours:
            self.ledger.wait("upload")
            self.compute(func, operator(func), (target.elem, self.place(source)), {})
        else:
            self.ledger.wait("download")
            target.copy_(self.read(source))
        if ours:
            target.known = None
        return target

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in page-locked memory, for all that the ledger knows."""
        if type(tensor) is CudaTensor:
            raise RuntimeError("cannot pin a tensor of a CUDA device: only CPU memory can be")
        pinned = tensor.clone()
        storage = pinned.untyped_storage()
        self._pinned.add(storage._cdata)
        weakref.finalize(storage, self._pinned.discard, storage._cdata)
        return pinned

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._pinned

    # Attention and communication

    def attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """What torch's function gives. CUDA takes the flash kernel without a mask in half
        precision, else the memory-efficient one where heads are not grouped, else plain products:
        scores of all tokens by all tokens."""
        if Graph.now():
            raise NotImplementedError("attention by torch's own kernels in a CUDA graph")
        self._same_device("attention", [x for x in (query, key, value, attn_mask) if x is not None])
        half = query.dtype in (torch.float16, torch.bfloat16)
        if half and attn_mask is None and query.shape[-1] <= 256:
            kernel = "flash"
        elif query.shape[-3] == key.shape[-3]:
            kernel = "efficient"
        else:
            kernel = "math"
        self.ledger.work.attention[f"{kernel} {str(query.dtype)[6:]}"] += 1
        options = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        return self.attend(kernel, query, key, value, attn_mask, options)

    @abstractmethod
    def attend(self, kernel: str, query: Any, key: Any, value: Any, mask: Any, options: Any) -> Any:
        """Attention by this kernel, without dropout."""

    def _communicate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Between processes, in place: by what the tensors stand for."""
        inner = {name: self._inner(x) for name, x in kwargs.items()}
        out = func(*(self._inner(x) for x in args), **inner)
        ours = {id(x.elem): x for x in _tensors(args) if type(x) is CudaTensor}

        def back(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(map(back, value))
            return ours.get(id(value), value)

        return back(out)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """All tensors of an operator's arguments."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _read(func: Any, of: Operator, args: Any, kwargs: Any) -> str | None:
    """What the host waits for, if it does."""
    if of.name in INDEXES and _by_mask(args):
        return "boolean index"
    if func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        return "repeat_interleave"
    return of.read


def _by_mask(args: Any) -> bool:
    """Whether places are taken by a mask, which the host must count; one number for all of them is
    filled in without."""
    if len(args) > 2 and args[2].numel() == 1:
        return False
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])


def _patch(device: FakeDevice) -> None:
    """What torch says of memory; threads, which would not know the device."""
    ledger = device.ledger

    def free(*_: Any) -> tuple[int, int]:
        return int(ledger.capacity - ledger.reserved), int(ledger.capacity + CONTEXT)

    torch.cuda.mem_get_info = free
    gpus._count = lambda: torch.cuda.device_count()
    device_memory.gpu_bytes = lambda name: (ledger.capacity + CONTEXT, float(free()[0]))
    torch.cuda.memory_allocated = lambda *_: ledger.live
    torch.cuda.memory_reserved = lambda *_: ledger.reserved
    torch.cuda.max_memory_allocated = lambda *_: ledger.work.peak
    torch.cuda.empty_cache = ledger.empty_cache
    torch.cuda.synchronize = lambda *_: ledger.wait("synchronize")
    torch.Tensor.pin_memory = lambda tensor, *_: device.pin(tensor)  # type: ignore[assignment]
    torch.Tensor.is_pinned = lambda tensor, *_: device._is_pinned(tensor)  # type: ignore[assignment]
    begin: Callable[..., None] = threading.Thread.run
    if not getattr(begin, "knows_fake_gpu", False):
        threading.Thread.run = _in_thread(begin)  # type: ignore[method-assign]


def _in_thread(begin: Callable[..., None]) -> Callable[..., None]:
    def run(thread: threading.Thread) -> None:
        device = CudaTensor.device_running
        if device is None:
            return begin(thread)
        with device:
            return begin(thread)

    run.knows_fake_gpu = True  # type: ignore[attr-defined]
    return run
