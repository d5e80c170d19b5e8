"""Plots as inline SVG text: crisp at any size, styled by the page's CSS, no dependency.

Whisker rows use percent coordinates, so that they stretch while their text, which is HTML, does
not shrink on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from seva_exp.core.printable import printable
from seva_exp.core.records import Delta
from seva_exp.report.significance import MINUS, verdict

Point = tuple[float, float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers that lie within [low, high]."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float) -> str:
    """A tick's value without needless digits."""
    return f"{value:g}".replace("-", MINUS)


@dataclass(frozen=True)
class Scale:
    """A horizontal axis: values from ``low`` to ``high`` over 0 to 100 percent."""

    low: float
    high: float

    @classmethod
    def around(cls, deltas: Sequence[Delta]) -> Scale:
        """The axis that holds every finite interval, and zero, with a margin."""
        values = [v for d in deltas for v in (d.low, d.value, d.high) if math.isfinite(v)] + [0.0]
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 1.0
        return cls(low - margin, high + margin)

    def at(self, value: float) -> str:
        """The place of ``value``, as an SVG percentage."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def whisker(delta: Delta, scale: Scale) -> Markup:
    """One change as a dot (filled when significant) with its 95 % interval and the zero line."""
    kind = verdict(delta).replace(" ", "-")
    zero = scale.at(0)
    parts = [f'<line class="zero" x1="{zero}" x2="{zero}" y1="0" y2="100%"/>']
    if all(map(math.isfinite, (delta.low, delta.value, delta.high))):
        low, high, at = scale.at(delta.low), scale.at(delta.high), scale.at(delta.value)
        parts += [
            f'<line class="reach" x1="{low}" x2="{high}" y1="50%" y2="50%"/>',
            f'<circle class="dot" cx="{at}" cy="50%" r="5"/>',
        ]
    return Markup(f'<svg class="whisker {kind}" aria-hidden="true">{"".join(parts)}</svg>')


def axis(scale: Scale) -> Markup:
    """The tick labels under the whiskers."""
    parts = [
        f'<text x="{scale.at(v)}" y="13" text-anchor="middle">{escape(tick_label(v))}</text>'
        for v in ticks(scale.low, scale.high)
    ]
    return Markup(f'<svg class="axis" aria-hidden="true">{"".join(parts)}</svg>')


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 320, 170, 44, 10, 10, 24


def curve(
    title: str,
    points: Sequence[Point],
    reference: tuple[float, str] | None = None,
    unit: str = "step",
    held_out: Sequence[Point] = (),
) -> Markup:
    """A line over training steps, or over rounds; a second one of what is ``held_out``.
    ``reference`` is a dashed level with its name."""
    points, others = finite(points), finite(held_out)
    if not points:
        return Markup("")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    levels = ys + [y for _, y in others] + ([reference[0]] if reference else [])
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(levels), max(levels)
    pad = 0.08 * (y_high - y_low) or 0.5 * abs(y_high) or 0.5
    y_low, y_high = y_low - pad, y_high + pad

    def place(x: float, y: float) -> Point:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_low) / (y_high - y_low)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_y_tick(v, place(x_low, v)[1]) for v in ticks(y_low, y_high, 4)]
    steps = sorted({round(v) for v in ticks(x_low, x_high)})
    parts += [_x_tick(v, place(v, y_low)[0]) for v in steps if x_low <= v <= x_high]
    if reference:
        parts.append(_reference(place(x_low, reference[0])[1], reference[1]))
    for kind, some in (("line held-out", others), ("line", points)):
        placed = [place(x, y) for x, y in some]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline class="{kind}" points="{path}"/>' if some else "")
    parts.append(f'<circle class="end" cx="{placed[-1][0]:.1f}" cy="{placed[-1][1]:.1f}" r="3"/>')
    words = f"{title}: from {ys[0]:.3g} at {unit} {xs[0]:g} to {ys[-1]:.3g} at {unit} {xs[-1]:g}"
    if others:
        words += f"; held out: from {others[0][1]:.3g} to {others[-1][1]:.3g}"
    return Markup(
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(printable(words))}">{"".join(parts)}</svg>'
    )


def finite(points: Sequence[Point]) -> list[Point]:
    """Those that can be drawn."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _y_tick(value: float, y: float) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{tick_label(value)}</text>'
    )


def _x_tick(value: float, x: float) -> str:
    return f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{tick_label(value)}</text>'


def _reference(y: float, name: str) -> str:
    return (
        f'<line class="reference" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="reference" x="{_WIDTH - _RIGHT}" y="{y - 4:.1f}" text-anchor="end">'
        f"{escape(printable(name))}</text>"
    )


def bar(parts: Sequence[tuple[str, int]]) -> Markup:
    """A stacked bar of counts, in percent; the n-th part has the class ``part-n``."""
    total = sum(count for _, count in parts)
    if total <= 0:
        return Markup("")
    rects, start = [], 0.0
    for i, (_, count) in enumerate(parts):
        width = 100 * count / total
        place = f'x="{start:.3f}%" width="{width:.3f}%" height="100%"'
        rects.append(f'<rect class="part-{i}" {place}/>')
        start += width
    words = ", ".join(f"{name} {count}" for name, count in parts)
    head = f'<svg class="bar" role="img" aria-label="{escape(printable(words))}">'
    return Markup(head + "".join(rects) + "</svg>")
