"""What a fake GPU writes down: bytes, operations, kernels, and each time the host waits."""

from __future__ import annotations

import sys
import weakref
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, NamedTuple

import torch

from .graphs import REFUSED, Graph

GIB = 2**30
BLOCK = 512
"""Bytes to which CUDA's allocator rounds up."""
PACKAGE = "/seva_exp/"
HERE = "/fake_gpu/"
ACTIVATIONS = "activations"
"""The kind of what is made while nothing else is said."""


class Wait(NamedTuple):
    """A moment in which the host waits for the device, or copies to it and waits."""

    kind: str
    """``item``, ``tolist``, ``download``, ``upload``, ``boolean index`` ..."""
    place: str
    """``file:function`` of this package that asked for it; else of the library."""
    line: int


@dataclass
class Work:
    """What was done in a stretch of a run."""

    kernels: int = 0
    flop: Counter[str] = field(default_factory=Counter)
    """Of matrix products, convolutions and attention, by number format: multiply-adds times 2."""
    attention: Counter[str] = field(default_factory=Counter)
    """Which kernel CUDA would take, and in which number format."""
    waits: Counter[Wait] = field(default_factory=Counter)
    peak: int = 0
    """Most bytes that were held at once."""
    at_peak: dict[str, int] = field(default_factory=dict)
    """Those by kind."""

    @property
    def float32_share(self) -> float:
        """Of all matrix work."""
        return self.flop["float32"] / max(1, sum(self.flop.values()))

    def waits_by_kind(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for wait, count in self.waits.items():
            found[wait.kind] += count
        return found


class _Held(weakref.ref):  # type: ignore[type-arg]
    """A storage, until it is freed."""

    __slots__ = ("key", "kind", "size")

    def __new__(cls, storage: Any, freed: Any, *_: Any) -> _Held:
        return super().__new__(cls, storage, freed)

    def __init__(self, storage: Any, freed: Any, key: int, size: int, kind: str) -> None:
        super().__init__(storage, freed)
        self.key, self.size, self.kind = key, size, kind


class Ledger:
    """Of one device with ``capacity`` bytes. What is allocated beyond them raises torch's error.
    As torch's allocator does, it keeps what was freed until ``empty_cache``."""

    def __init__(self, capacity: float = float("inf")) -> None:
        self.capacity = capacity
        self.reserved = 0
        self.by_kind: Counter[str] = Counter()
        self.work = Work()
        self._kind = ACTIVATIONS
        self._live = 0
        self._held: dict[int, _Held] = {}
        self._freed: deque[_Held] = deque()  # by any thread, at any time
        self._lock = RLock()

    @property
    def live(self) -> int:
        """Bytes that are held now."""
        with self._lock:
            while self._freed:
                gone = self._freed.popleft()
                del self._held[gone.key]
                self._live -= gone.size
                self.by_kind[gone.kind] -= gone.size
            return self._live

    @contextmanager
    def kind(self, name: str) -> Iterator[None]:
        """What is allocated meanwhile is of this kind."""
        before, self._kind = self._kind, name
        try:
            yield
        finally:
            self._kind = before

    @contextmanager
    def stretch(self) -> Iterator[Work]:
        """What is done meanwhile, beside what is counted for the stretch around it."""
        before, self.work = self.work, Work(peak=self.live, at_peak=dict(self.by_kind))
        try:
            yield self.work
        finally:
            done, self.work = self.work, before
            before.kernels += done.kernels
            for name in ("flop", "attention", "waits"):
                getattr(before, name).update(getattr(done, name))
            if done.peak > before.peak:
                before.peak, before.at_peak = done.peak, done.at_peak

    # Bytes

    def hold(self, tensor: torch.Tensor) -> None:
        """A tensor of the device; its storage counts until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        with self._lock:
            before = self.live  # which lets go of what was freed, perhaps at the same address
            if key in self._held:
                return
            size = -(-storage.nbytes() // BLOCK) * BLOCK
            if before + size > self.capacity:
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {size / GIB:.2f} GiB, of "
                    f"{self.capacity / GIB:.2f} GiB {before / GIB:.2f} are in use (fake GPU)"
                )
            self._held[key] = _Held(storage, self._freed.append, key, size, self._kind)
            self._live = before + size
            self.by_kind[self._kind] += size
            self.reserved = max(self.reserved, self._live)
            if self._live > self.work.peak:
                self.work.peak, self.work.at_peak = self._live, dict(self.by_kind)

    def empty_cache(self) -> None:
        """What is kept unused goes back to the system."""
        self.reserved = self.live

    # The host that waits

    def wait(self, kind: str) -> None:
        if Graph.now():
            raise RuntimeError(f"{REFUSED} ({kind})")
        self.work.waits[Wait(kind, *place())] += 1


def place() -> tuple[str, int]:
    """The innermost function of this package that is running, and its line; else of a library."""
    frame: Any = sys._getframe(1)
    library = ("a library", 0)
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if PACKAGE in file and "site-packages" not in file:
            return f"{file.rpartition(PACKAGE)[2]}:{name}", frame.f_lineno
        if library[1] == 0 and "site-packages/" in file and "site-packages/torch/" not in file:
            library = f"{file.rpartition('site-packages/')[2]}:{name}", frame.f_lineno
        frame = frame.f_back
    return library
