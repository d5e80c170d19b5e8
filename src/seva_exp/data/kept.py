"""What a source had made before it was killed: given out again in the same order, before anything
is made anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from seva_exp.core.records import Drop, ImageRef, Sample, from_json
from seva_exp.core.spec import Json
from seva_exp.core.store import Journal, read_journal

FILE = "made.jsonl"
BATCH, SECONDS = 1024, 2.0
"""Results, or their time, that a kill may lose."""
KIND, NUMBER, END = "kind", "n", "end"
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Sample, Drop, ImageRef)}
Result = TypeVar("Result", Sample, Drop, ImageRef, Sample | Drop, ImageRef | Drop)


class Kept:
    """A source's results in the order in which it makes them, which must be the same each time.
    With a ``folder`` they are kept there, a batch at a time. Of those that an earlier attempt left
    only the next one is held. ``note`` is told when the first result is made that is not one of
    them."""

    def __init__(
        self, folder: Path | None = None, note: Callable[[int], None] = lambda count: None
    ) -> None:
        self._journal = Journal(folder, FILE) if folder else None
        self._rows = self._in_order() if folder else iter(())
        self._count = 0
        self._note = note
        self._new: list[Json] = []
        self._since = time.monotonic()
        self._next = next(self._rows, None)

    def __call__(self, make: Callable[[], Result]) -> Result:
        """The next result: the one that was kept, else what ``make`` makes."""
        return self._keep(make()) if self._next is None else self._taken()  # type: ignore[return-value]

    def part(self, make: Callable[[int], Iterator[Sample | Drop]]) -> Iterator[Sample | Drop]:
        """The results of a part, such as a file: ``make(n)`` makes all but the first n. Of a part
        that was finished nothing is made."""
        known = 0
        while self._next is not None:
            one = self._taken()
            if one is None:
                return
            known += 1
            yield one  # type: ignore[misc]
        for one in make(known):
            yield self._keep(one)
        self._append({KIND: END})

    def _in_order(self) -> Iterator[Json]:
        """Rows up to the first that is missing (its line was damaged): what is made then has the
        numbers of those behind it, so that these are passed over the next time, too."""
        assert self._journal
        for row in read_journal(self._journal.path):
            if row[NUMBER] == self._count:
                yield row

    def _taken(self) -> Sample | Drop | ImageRef | None:
        """The next one that was kept; None for a part's end."""
        row = self._next
        assert row
        self._count += 1
        self._next = next(self._rows, None)
        if self._next is None:
            self._note(self._count)
            self._since = time.monotonic()
        del row[NUMBER]
        kind = row.pop(KIND)
        return None if kind == END else from_json(KINDS[kind], row)

    def _keep(self, one: Result) -> Result:
        self._append({KIND: type(one).__name__, **asdict(one)})
        return one

    def _append(self, row: Json) -> None:
        if self._journal is None:
            return
        self._new.append({NUMBER: self._count, **row})
        self._count += 1
        if len(self._new) >= BATCH or time.monotonic() - self._since >= SECONDS:
            self._journal.append(self._new)
            self._new = []
            self._since = time.monotonic()
