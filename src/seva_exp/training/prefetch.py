"""Micro-batches made ready ahead of the step that takes them, so that a GPU does not wait for
pictures to be read and processed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

END = object()
"""What the thread hands over after the last micro-batch."""


class Prefetcher(Iterator[Any]):
    """The values of ``source`` in order, up to ``depth`` of them made ahead by one thread; an error
    of ``source`` is raised where its value would have come. ``depth`` 0 makes each when asked."""

    def __init__(self, source: Iterator[Any], depth: int) -> None:
        self.source = source
        self._depth = depth
        self._ready: deque[Future[Any]] = deque()
        self._pool = ThreadPoolExecutor(1, "collation") if depth else None

    def __next__(self) -> Any:
        if self._pool is None:
            return next(self.source)
        while len(self._ready) <= self._depth:
            self._ready.append(self._pool.submit(next, self.source, END))
        value = self._ready.popleft().result()
        if value is END:
            self.close()
            raise StopIteration
        return value

    def close(self) -> None:
        """Values that were made ready are dropped; the one being made is waited for."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool, self.source = None, iter(())
        self._ready.clear()


def ahead(source: Iterator[Any], device: torch.device, depth: int) -> Prefetcher:
    """With a GPU ``depth`` of them are made ahead; on a CPU that would only take cores from what
    computes with them."""
    return Prefetcher(source, depth if device.type == "cuda" else 0)


def on_device(value: Any, device: torch.device) -> Any:
    """A batch's tensors on ``device``; those in pinned memory are copied while the host goes on.
    Values that know how to move (``to``) are asked for it; others stay as they are."""
    if isinstance(value, dict):
        return {name: on_device(one, device) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on_device(one, device) for one in value)
    return value.to(device, non_blocking=True) if hasattr(value, "to") else value
