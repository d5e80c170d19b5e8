"""Decode steps as CUDA graphs: recorded once for a shape and played again, so that the host makes
one call a step instead of some thousand.

A recording is trusted when its first play, on other tokens than it was made with, gives what the
step itself gives. Where it does not, or none can be made, all steps are computed as on a CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from seva_exp.core.errors import StageError, is_out_of_memory
from seva_exp.decoding.kv_attention import Shape
from seva_exp.decoding.kv_cache import KVCache

Work = Callable[[], Tensor]
Record = Callable[[Work], Work]
"""Takes work on tensors that stay where they are; gives what does the same work again."""
Step = Callable[..., Tensor]
"""Tensors of one shape in, logits out. Done twice it writes the same keys and values."""

OFTEN = 3
"""A shape is recorded when it comes for this time: a recording costs as much as some steps."""
NEAR = 1e-2
"""By how much of the largest logit a play may be off: half precision, other kernels."""


@dataclass
class Recording:
    """``play`` reads ``inputs``, in their places."""

    inputs: tuple[Tensor, ...]
    play: Work
    trusted: bool = False


class RecordedSteps:
    """Steps on the KV cache of one loop after another. ``give_up`` is told, once, why none are
    recorded."""

    def __init__(self, record: Record, give_up: Callable[[str], None]) -> None:
        self._record: Record | None = record
        self._give_up = give_up
        self._known: dict[Shape, Recording] = {}
        self._seen: Counter[Shape] = Counter()
        self._on: tuple[KVCache, int] | None = None

    def __call__(
        self, cache: KVCache, shape: Shape, inputs: tuple[Tensor, ...], step: Step
    ) -> Tensor:
        """``step(*inputs)``; the next call may overwrite what it gives."""
        if self._on != (cache, cache.sizes):  # recordings are of buffers that are gone
            self.forget()
            self._on = cache, cache.sizes
        if recording := self._known.get(shape):
            return self._played(recording, inputs, step)
        self._seen[shape] += 1
        if self._record and self._seen[shape] >= OFTEN:
            fixed = tuple(one.clone() for one in inputs)
            try:
                self._known[shape] = Recording(fixed, self._record(partial(step, *fixed)))
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                first, _, _ = str(error).strip().partition("\n")
                self._stop(f"{type(error).__name__}: {first}")
        return step(*inputs)

    def forget(self) -> None:
        """Recordings, and the cache that they are of."""
        self._known.clear()
        self._on = None

    def _played(self, recording: Recording, inputs: tuple[Tensor, ...], step: Step) -> Tensor:
        for fixed, value in zip(recording.inputs, inputs, strict=True):
            fixed.copy_(value)
        if recording.trusted:
            return recording.play()
        wanted, found = step(*inputs), recording.play()
        recording.trusted = bool((found - wanted).abs().max() <= NEAR * wanted.abs().max())
        if not recording.trusted:
            self._stop("a recorded step gave other numbers than the step itself")
        return wanted

    def _stop(self, why: str) -> None:
        self._record = None
        self._known.clear()
        self._give_up(f"decode steps are not recorded as CUDA graphs ({why}); it goes on without")


def refused(why: str) -> None:
    """To give up is an error. Raises StageError."""
    why, _, _ = why.rpartition(";")
    raise StageError(f"machine.cuda_graphs=on: {why}. Take auto or off.")


def cuda_graphs(device: torch.device) -> Record:
    """CUDA graphs that share their memory."""

    @cache
    def apart() -> tuple[Any, Any]:
        return torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def record(work: Work) -> Work:
        with torch.cuda.device(device):
            pool, aside = apart()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # left behind where recording fails, too
                work()  # what is set up at a first call cannot be recorded
                # Of this thread alone: others make pictures ready meanwhile.
                with torch.cuda.graph(graph, pool, aside, capture_error_mode="thread_local"):
                    out = work()
            torch.cuda.current_stream().wait_stream(aside)

        def play() -> Tensor:
            graph.replay()
            return out

        return play

    return record
