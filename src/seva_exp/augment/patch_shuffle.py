"""A harder negative: the picture's cells in another order."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment.base import ImageAugmentation

Box = tuple[int, int, int, int]


class PatchShuffle(ImageAugmentation):
    """The picture cut into a grid of cells, and every cell moved to another one's place.

    Ours: local detail and overall color stay, so that objects are still named, but where they are
    and what belongs together is lost. Where cells differ by a pixel they are scaled to fit.
    """

    kind: Literal["patch_shuffle"] = "patch_shuffle"
    grid: int = Field(4, ge=2, le=64, description="cells a side; more destroy more")

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        boxes = cells(x.width, x.height, self.grid)
        out = x.copy()
        for box, source in zip(boxes, cycle(rng, len(boxes)), strict=True):
            cell = x.crop(boxes[source])
            size = (box[2] - box[0], box[3] - box[1])
            if cell.size != size:
                cell = cell.resize(size, Image.Resampling.BILINEAR)
            out.paste(cell, box[:2])
        return out


def cells(width: int, height: int, grid: int) -> list[Box]:
    """``grid`` x ``grid`` boxes that tile the picture, row by row; fewer where a side has fewer
    pixels."""
    columns, rows = min(grid, width), min(grid, height)
    xs = [round(width * i / columns) for i in range(columns + 1)]
    ys = [round(height * i / rows) for i in range(rows + 1)]
    return [(xs[i], ys[j], xs[i + 1], ys[j + 1]) for j in range(rows) for i in range(columns)]


def cycle(rng: random.Random, n: int) -> list[int]:
    """A random permutation of 0 .. n-1 that is one cycle (Sattolo's algorithm): nothing stays."""
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = rng.randrange(i)
        order[i], order[j] = order[j], order[i]
    return order
