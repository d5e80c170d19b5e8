"""Progress of long work: a bar on a terminal, a line now and then in a log file, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from seva_exp.core.terminal import raw

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY = 15.0
"""Seconds between two lines in a log file."""


class Meter(Protocol):
    """Counts work done."""

    def update(self, n: int) -> object: ...

    def describe(self, label: str) -> None:
        """Be called so from now on."""
        ...


class _Lines:
    """A line with share, rate and time left, at most every ``LINE_EVERY`` seconds."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._start = self._last = time.monotonic()

    def update(self, n: int) -> None:
        """Count ``n`` more; print when it is time."""
        self._done += n
        now = time.monotonic()
        if now - self._last < LINE_EVERY or self._done >= self._total:
            return
        self._last = now
        rate = self._done / (now - self._start)
        left = (self._total - self._done) / rate if rate else float("inf")
        print(
            f"  {self._label}: {self._done}/{self._total} {self._unit}, "
            f"{rate:.1f}/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def describe(self, label: str) -> None:
        self._label = label


class _Nothing:
    def update(self, n: int) -> None:
        """Count nothing."""

    def describe(self, label: str) -> None: ...


class _Bar:
    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar
        self.update = bar.update

    def describe(self, label: str) -> None:
        self._bar.set_description(f"  {label}")


@contextmanager
def progress(mode: str, label: str, total: int, unit: str) -> Iterator[Meter]:
    """A meter for ``total`` units of work. ``mode``: auto, bar, lines or off."""
    if mode == "auto":
        mode = "bar" if sys.stderr.isatty() else "lines"
    if mode == "bar":
        from tqdm import tqdm

        bar: tqdm[Any] = tqdm(
            total=total,
            desc=f"  {label}",
            unit=unit,
            leave=False,
            dynamic_ncols=True,
            file=raw(sys.stderr),
        )
        with bar:
            yield _Bar(bar)
    else:
        yield _Lines(label, total, unit) if mode == "lines" else _Nothing()
