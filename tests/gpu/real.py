"""A real CUDA device in the place of ``fake_gpu.MetaDevice``: what is counted there is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from ..fake_gpu.ledger import GIB, Work


class Ledger:
    """Bytes by torch's allocator, of which it rounds up as the fake one's does."""

    def __init__(self) -> None:
        self._works = [Work()]

    @property
    def live(self) -> int:
        return torch.cuda.memory_allocated()

    def kind(self, name: str) -> Any:
        """What bytes are for is not known here."""
        return nullcontext()

    @contextmanager
    def stretch(self) -> Iterator[Work]:
        self._look()
        self._works.append(Work())
        try:
            yield self._works[-1]
        finally:
            self._look()
            done = self._works.pop()
            self._works[-1].peak = max(self._works[-1].peak, done.peak)

    def _look(self) -> None:
        """Since the last look."""
        self._works[-1].peak = max(self._works[-1].peak, torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()


class RealDevice:
    """``gib``: its memory."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.gib = torch.cuda.get_device_properties(0).total_memory / GIB

    def __enter__(self) -> RealDevice:
        torch.cuda.empty_cache()
        return self

    def __exit__(self, *_: Any) -> None:
        torch.cuda.empty_cache()

    def settle(self, model: Any) -> None:
        """Weights in which nothing overflows."""
        with torch.no_grad():
            for value in model.parameters():
                value.normal_(0, 0.02)
