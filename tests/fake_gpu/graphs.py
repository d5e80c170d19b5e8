"""Capture into CUDA graphs, and their replay: the operators of a stretch of code are written down
with the memory that they read, and done again on what lies there then.

What CUDA refuses while it captures is refused (a wait of the host), and what it lets through to
give garbage later is refused too: a copy from main memory, memory that is gone at the replay.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .operators import Operator

REFUSED = "CUDA error: operation not permitted when stream is capturing"


@dataclass(frozen=True)
class Slot:
    """A tensor that the captured code made."""

    number: int


@dataclass(frozen=True)
class Outside:
    """A tensor that was there before: where it lies. It is not kept alive."""

    storage: Any
    size: Any
    stride: Any
    offset: int
    dtype: torch.dtype

    @classmethod
    def of(cls, x: torch.Tensor) -> Outside:
        storage = weakref.ref(x.untyped_storage())
        return cls(storage, x.size(), x.stride(), x.storage_offset(), x.dtype)

    def tensor(self) -> torch.Tensor:
        storage = self.storage()
        if storage is None:
            raise RuntimeError("a CUDA graph reads memory that was freed after it was captured")
        made = torch.empty(0, dtype=self.dtype, device=storage.device)
        return made.set_(storage, self.offset, self.size, self.stride)


class Stream:
    """``torch.cuda.Stream``: the only one."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, other: Stream) -> None:
        """What is done in the other one is done."""


class Graph:
    """``torch.cuda.CUDAGraph``."""

    capturing: Graph | None = None
    played: int = 0
    """Replays of all graphs."""

    def __init__(self, **_: Any) -> None:
        self.kernels = 0
        self.flop: Counter[str] = Counter()
        self._thread = threading.get_ident()
        self._tape: list[tuple[Any, Operator, Any, Any, Any]] = []
        self._made: list[Any] = []
        """Of each slot a weak reference: who still has it sees a replay's result in it."""

    @classmethod
    def now(cls) -> Graph | None:
        """What captures in this thread."""
        graph = cls.capturing
        return graph if graph is not None and graph._thread == threading.get_ident() else None

    @classmethod
    @contextmanager
    def capture(cls, graph: Graph, *_: Any, **__: Any) -> Iterator[None]:
        """``torch.cuda.graph``."""
        assert cls.capturing is None, "two captures at once"
        cls.capturing = graph
        try:
            yield
        finally:
            cls.capturing = None

    def note(self, func: Any, of: Operator, args: Any, kwargs: Any, out: Any) -> None:
        """An operator that was done."""
        self.kernels += of.kernel
        given = self._places(args), self._places(kwargs)
        self._tape.append((func, of, *given, None if of.returns else self._slots(out)))

    def replay(self) -> None:
        from .tensor import CudaTensor

        device = CudaTensor.device_running
        assert device is not None
        Graph.played += 1
        device.ledger.work.kernels += self.kernels
        device.ledger.work.flop.update(self.flop)
        found: dict[int, torch.Tensor] = {}
        for func, of, args, kwargs, slots in self._tape:
            given = self._values(args, found), self._values(kwargs, found)
            out = device.compute(func, of, *given)
            if slots is not None:
                _keep(slots, out, found)
        for number, reference in enumerate(self._made):
            if (made := reference()) is not None and number in found:
                made.copy_(found[number])

    def _places(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            slot = getattr(value, "captured", None)
            return slot[1] if slot and slot[0] is self else Outside.of(value)
        return _mapped(self._places, value)

    def _slots(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            slot = Slot(len(self._made))
            value.captured = self, slot  # type: ignore[attr-defined]
            self._made.append(weakref.ref(value))
            return slot
        return _mapped(self._slots, value)

    def _values(self, value: Any, found: dict[int, torch.Tensor]) -> Any:
        if isinstance(value, Slot):
            return found[value.number]
        if isinstance(value, Outside):
            return value.tensor()
        return _mapped(lambda one: self._values(one, found), value)


def _mapped(act: Any, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(act, value))
    if isinstance(value, dict):
        return {name: act(one) for name, one in value.items()}
    return value


def _keep(slots: Any, out: Any, found: dict[int, torch.Tensor]) -> None:
    if isinstance(slots, Slot):
        found[slots.number] = out
    elif isinstance(slots, (list, tuple)):
        for slot, one in zip(slots, out, strict=True):
            _keep(slot, one, found)
