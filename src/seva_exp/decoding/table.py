"""What a decode step reads of each row: a table of whole numbers that comes to the device once and
goes on there from step to step, while the host does not know yet what was chosen.

Shape legend: R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seva_exp.decoding.rows import PrefixGroup, Row


@dataclass(frozen=True)
class StepTable:
    """``lines`` [9, R] int64: the token to feed, its position, its place among the row's own, how
    many tokens the row has; the place at which it stays; places of its prefix, its prefix, its
    number behind it, its seed. A row that is not used is all 0."""

    lines: Tensor

    @property
    def draws(self) -> tuple[Tensor, Tensor]:
        """Of which numbers the next tokens are drawn: the rows' seeds and steps, [R] each."""
        return self.lines[8], self.lines[3]

    def go_on(self, chosen: Tensor) -> None:
        """To the next step, in place, with the tokens that were ``chosen`` [n] for the first rows.
        A row with its longest answer stays where it is: it needs no place beyond."""
        self.lines[0, : len(chosen)] = chosen
        self.lines[1:4] += self.lines[2] < self.lines[4]


def table_of(
    rows: Iterable[tuple[Row, PrefixGroup]],
    owners: Sequence[int],
    places: Sequence[int],
    unused: int,
) -> Tensor:
    """The lines of a table on the CPU, with so many ``unused`` rows."""
    columns = [
        (
            row.tokens[-1],
            row.first_position + len(row.tokens) - 1,
            row.kept,
            len(row.tokens),
            row.fed - 1,
            len(group.ids),
            owner,
            place,
            row.seed,
        )
        for (row, group), owner, place in zip(rows, owners, places, strict=True)
    ]
    return torch.tensor(columns + [(0,) * 9] * unused).T.contiguous()
