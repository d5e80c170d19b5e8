"""A word's map drawn over its picture: what it does not rest on is veiled, the half of the largest
value is outlined, what is below zero is hatched."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from seva_exp.grounding.rows import WordMap

FINE = 36
"""Points along a map's longer side that it is drawn with, or a multiple: between the cells the
values are interpolated."""
WIDTH = 300
"""Width of the drawing, in its own units; its height is the picture's."""
HALF, BELOW = 0.5, -0.25
"""Shares of the scale: from the first on a region is outlined, up to the second it is hatched."""
LEAST = 0.01
"""Nats that a scale of occlusion reaches at least: where no cell takes as much, nothing is drawn as
if it mattered."""
VEIL, MORE, LESS = (122, 128, 138), (44, 85, 201), (194, 87, 12)
"""Colours: of the veil, and in the difference of what rose and of what fell."""
OPAQUE = 0.82
"""Of the veil where the map is zero."""

Point = tuple[float, float]
Colour = tuple[int, int, int, int]


@dataclass(frozen=True)
class Field:
    """A map in fine points, as shares of its scale: ``rows`` from top to bottom."""

    rows: tuple[tuple[float, ...], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in points."""
        return len(self.rows[0]), len(self.rows)


@dataclass(frozen=True)
class Drawing:
    """One map as an SVG shows it, in units of ``WIDTH``: ``uri`` is a PNG to lay over the picture,
    ``outline`` and ``hatched`` are paths. ``strongest``: the value of largest size, in the map's
    own unit."""

    uri: str
    outline: str
    hatched: str
    strongest: float


@dataclass(frozen=True)
class Trio:
    """Base, aligned, and aligned less base. ``shared``: all three have one scale, which is the
    largest value of the first two (``LEAST`` at least); else (maps without a unit) each of these is
    drawn on its own, and the difference is that of what is drawn."""

    base: Drawing
    aligned: Drawing
    change: Drawing
    shared: bool


def trio(found: WordMap, height: float) -> Trio:
    """``height``: of the picture, in units of ``WIDTH``."""
    base, aligned, change, scale = shares_of(found)
    moved = strongest(change) * (scale or 1.0)
    return Trio(
        _drawing(field(found.grid, base), height, veiled, strongest(found.base)),
        _drawing(field(found.grid, aligned), height, veiled, strongest(found.aligned)),
        _drawing(field(found.grid, change), height, tinted, moved),
        shared=scale is not None,
    )


def shares_of(found: WordMap) -> tuple[list[float], list[float], list[float], float | None]:
    """Base, aligned and their difference as shares of the scale, and that; None where each of the
    two has its own."""
    pair = found.base, found.aligned
    shared = found.method == "occlusion"
    largest = [abs(strongest(values)) for values in pair]
    scales = [max(LEAST, *largest)] * 2 if shared else [one or 1.0 for one in largest]
    base, aligned = (
        [value / scale for value in values] for values, scale in zip(pair, scales, strict=True)
    )
    change = [after - before for before, after in zip(base, aligned, strict=True)]
    return base, aligned, change, scales[0] if shared else None


def strongest(values: Sequence[float]) -> float:
    """The one of largest size."""
    return max(values, key=abs, default=0.0)


def field(grid: tuple[int, int], shares: Sequence[float]) -> Field:
    """``grid``: rows, columns; ``shares`` row by row."""
    rows, columns = grid
    cells = Image.new("F", (columns, rows))
    cells.putdata(list(shares))
    times = max(1, round(FINE / max(rows, columns)))
    width, height = columns * times, rows * times
    fine = cells.resize((width, height), Image.Resampling.BICUBIC)
    values = [tuple(_number(fine.getpixel((x, y))) for x in range(width)) for y in range(height)]
    return Field(tuple(values))


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value


def veiled(share: float) -> Colour:
    """Clear where the word rests on the picture."""
    return (*VEIL, round(255 * OPAQUE * (1 - min(1.0, max(0.0, share)))))


def tinted(share: float) -> Colour:
    """Of a difference: the veil, and on it what rose and what fell."""
    over = min(1.0, abs(share)) * 0.9
    alpha = over + OPAQUE * (1 - over)
    tint = MORE if share > 0 else LESS
    mixed = [
        round((a * over + b * OPAQUE * (1 - over)) / alpha) for a, b in zip(tint, VEIL, strict=True)
    ]
    return (mixed[0], mixed[1], mixed[2], round(255 * alpha))


def painted(found: Field, colour: Callable[[float], Colour]) -> Image.Image:
    """RGBA, a pixel a point."""
    picture = Image.new("RGBA", found.size)
    picture.putdata([colour(share) for row in found.rows for share in row])
    return picture


def _drawing(
    found: Field, height: float, colour: Callable[[float], Colour], strongest: float
) -> Drawing:
    data = io.BytesIO()
    painted(found, colour).save(data, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    (_, outline), (hatched, _) = region(found, HALF), region(found, BELOW)
    scale = (WIDTH, height)
    return Drawing(
        uri,
        "".join(_path(line, scale) for line in outline),
        "".join(_path(part, scale) + "Z" for part in hatched),
        strongest,
    )


def region(found: Field, level: float) -> tuple[list[list[Point]], list[list[Point]]]:
    """Where a map is at or beyond ``level`` (below, of a negative one): polygons that fill it, and
    the lines around it (none along the picture's edge). Points are shares of width and height."""
    way = 1 if level > 0 else -1
    beyond = [[way * share - abs(level) for share in row] for row in found.rows]
    xs, ys = (_places(n) for n in found.size)
    columns, rows = ([0, *range(n), n - 1] for n in found.size)
    parts: list[list[Point]] = []
    lines: dict[Point, Point] = {}
    for j in range(len(rows) - 1):
        whole = 0  # squares before this one, of this row, that lie in it as a whole
        for i in range(len(columns)):
            corners = (
                [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)] if i + 1 < len(columns) else []
            )
            values = [beyond[rows[b]][columns[a]] for a, b in corners]
            if values and min(values) >= 0:
                whole += 1
                continue
            if whole:
                left, right, top, bottom = xs[i - whole], xs[i], ys[j], ys[j + 1]
                parts.append([(left, top), (right, top), (right, bottom), (left, bottom)])
                whole = 0
            if values and max(values) >= 0:
                part, crossed = _clipped([(xs[a], ys[b]) for a, b in corners], values)
                parts.append(part)
                lines |= crossed
    return parts, _joined(lines)


def _places(count: int) -> list[float]:
    """Where points lie along a side: in the middle of their pixels, and at both ends."""
    return [0.0, *((i + 0.5) / count for i in range(count)), 1.0]


def _clipped(
    corners: Sequence[Point], values: Sequence[float]
) -> tuple[list[Point], dict[Point, Point]]:
    """The part of a square with values from zero on, and its border inside the square: from where
    it leaves a side to where it comes back to one."""
    part: list[Point] = []
    leaves: list[Point] = []
    enters: list[Point] = []
    for k in range(4):
        here, there = values[k], values[(k + 1) % 4]
        if here >= 0:
            part.append(corners[k])
        if (here >= 0) != (there >= 0):
            point = _between(corners[k], corners[(k + 1) % 4], here / (here - there))
            part.append(point)
            (leaves if here >= 0 else enters).append(point)
    if values[0] < 0:  # the first side that it comes back to is the last one's
        enters = enters[1:] + enters[:1]
    return part, dict(zip(leaves, enters, strict=True))


def _between(a: Point, b: Point, share: float) -> Point:
    if b < a:  # from the squares on both sides of it one point
        a, b, share = b, a, 1 - share
    x, y = (round(p + (q - p) * share, 5) for p, q in zip(a, b, strict=True))
    return x, y


def _joined(lines: dict[Point, Point]) -> list[list[Point]]:
    """Pieces of border put together to lines."""
    left = dict(lines)
    ends = set(left.values())
    found = []
    for start in [*(one for one in lines if one not in ends), *lines]:
        if start not in left:
            continue
        line = [start]
        while line[-1] in left:
            line.append(left.pop(line[-1]))
        found.append(line)
    return found


def _path(points: Sequence[Point], scale: tuple[float, float]) -> str:
    told = [f"{x * scale[0]:.1f} {y * scale[1]:.1f}".replace(".0", "") for x, y in points]
    return f"M{told[0]}L{' '.join(told[1:])}" if len(told) > 1 else ""
