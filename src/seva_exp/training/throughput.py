"""Tokens a second and memory of each training step: what depends on the machine, kept apart from
``metrics.jsonl``, which two runs of the same key have in common."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from seva_exp.core.spec import Json, canonical

FILE = "throughput.jsonl"


class Throughput:
    """Writes ``throughput.jsonl``: one line a step when it is done. After a kill, steps that are
    computed again are there again."""

    def __init__(self, work: Path, device: str) -> None:
        self._file = work / FILE
        self._device = device
        self._tokens = 0.0
        self._time = time.monotonic()

    def start(self, tokens: float) -> None:
        """Training begins, or goes on after so many tokens."""
        self._tokens, self._time = tokens, time.monotonic()

    def step(self, step: int, tokens: float) -> Json:
        """A step is done; ``tokens`` of data were trained on in all (TRL's ``num_tokens``, all
        ranks: those of plain rows, also where a packed sequence computes fewer):
        ``tokens_per_second``, and ``peak_memory_gib`` of this process since it began."""
        now = time.monotonic()
        rate = (tokens - self._tokens) / max(now - self._time, 1e-9)
        found = {"tokens_per_second": round(rate, 1), **peak_memory(self._device)}
        self._tokens, self._time = tokens, now
        with self._file.open("a", encoding="utf-8") as file:
            file.write(canonical({"step": step, **found}) + "\n")
        return found


def peak_memory(device: str) -> Json:
    """``peak_memory_gib``: what torch had allocated on the GPU at most, or on a CPU the process's
    resident memory at most. Empty where the system does not tell."""
    if device.startswith("cuda"):
        return {"peak_memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 3)}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_memory_gib": round(peak / 2**30, 3)}


def summary(work: Path) -> Json:
    """Of all steps: the median of tokens a second, the maximum of memory."""
    rows = list(_rows(work / FILE))
    if not rows:
        return {}
    peaks = [row["peak_memory_gib"] for row in rows if "peak_memory_gib" in row]
    return {
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in rows),
        **({"peak_memory_gib": max(peaks)} if peaks else {}),
    }


def _rows(file: Path) -> Iterator[Json]:
    """Without lines that a kill or damage left: they tell of the machine alone."""
    for line in file.read_bytes().splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and "tokens_per_second" in row:
                yield row
