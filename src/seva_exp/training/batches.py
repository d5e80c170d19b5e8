"""Which rows are in which micro-batch, on which rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from seva_exp.core.randomness import seed_for


class SeededOrder(Sampler[int]):
    """Row order that depends on (seed, epoch, row id) alone: a dropped row moves no other."""

    def __init__(self, ids: Sequence[str], seed: int) -> None:
        self.ids = ids
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Takes effect when it is next iterated."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        purpose = f"order/{self._epoch}"
        return iter(
            sorted(range(len(self.ids)), key=lambda i: seed_for(self._seed, purpose, self.ids[i]))
        )

    def __len__(self) -> int:
        return len(self.ids)


class StepBatches(Sampler[list[int]]):
    """The micro-batches of one rank. The ``step`` rows of a step are cut into micro-batches of
    ``size``, and these are dealt to the ranks in turn.

    Every rank has equally many in every step: where there are too few, a rank gets the step's first
    row once more, marked as a filler (``~row``, a negative number), which must weigh nothing.
    """

    def __init__(self, order: SeededOrder, size: int, step: int, rank: int, ranks: int):
        self._order = order
        self._size = size
        self._step = step
        self._rank = rank
        self._ranks = ranks

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(self._order)
        for start in range(0, len(rows), self._step):
            step = rows[start : start + self._step]
            for first in range(0, self._rounds(len(step)) * self._ranks, self._ranks):
                at = (first + self._rank) * self._size
                yield step[at : at + self._size] or [~step[0]]

    def _rounds(self, rows: int) -> int:
        """Micro-batches of each rank for a step of so many rows."""
        return -(-rows // (self._size * self._ranks))

    def __len__(self) -> int:
        whole, rest = divmod(len(self._order), self._step)
        return whole * self._rounds(self._step) + self._rounds(rest)
