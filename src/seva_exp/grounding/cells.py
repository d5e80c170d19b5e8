"""The cells of a map: each image token where they are few, else blocks of them. No heavy import."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from seva_exp.grounding.spec import CELLS


@dataclass(frozen=True)
class Cells:
    """A map's ``grid`` (rows, columns), and the image tokens of each cell, row by row."""

    grid: tuple[int, int]
    tokens: tuple[tuple[int, ...], ...]


def cells_of(rows: int, columns: int, blocks: int) -> Cells:
    """The cells of ``rows`` x ``columns`` image tokens: up to ``CELLS`` of them each is one, else
    there are ``blocks`` along each side, or as many as there are tokens."""
    few = rows * columns <= CELLS
    grid = (rows, columns) if few else (min(blocks, rows), min(blocks, columns))
    down, across = (_bounds(n, parts) for n, parts in zip((rows, columns), grid, strict=True))
    return Cells(
        grid,
        tuple(
            tuple(y * columns + x for y in range(*vertical) for x in range(*horizontal))
            for vertical in down
            for horizontal in across
        ),
    )


def _bounds(length: int, parts: int) -> list[tuple[int, int]]:
    """``length`` cut into ``parts`` of sizes that differ by one at most."""
    cuts = [round(i * length / parts) for i in range(parts + 1)]
    return list(pairwise(cuts))
