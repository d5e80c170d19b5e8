"""Numbers in plain words: did a metric get better, and how is it written?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeGuard

from seva_exp.benchmarks.guards import SIGNIFICANCE as SIGNIFICANCE
from seva_exp.benchmarks.guards import is_gain, is_significant
from seva_exp.core.records import Delta, Finding

MINUS = "\N{MINUS SIGN}"


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether ``value`` is a finite number (a bool is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def has_direction(delta: Delta) -> bool:
    """Whether one direction of the metric is the good one (a length, for one, is neutral)."""
    return delta.better in ("higher", "lower")


Verdict = Literal["better", "at a price", "worse", "changed", "not significant"]


def verdict(delta: Delta) -> Verdict:
    """``at a price``: better, while metrics that guard it fell; ``changed``: a neutral metric."""
    if not is_significant(delta):
        return "not significant"
    if not has_direction(delta):
        return "changed"
    if not is_gain(delta):
        return "worse"
    return "at a price" if delta.price else "better"


def in_full(delta: Delta) -> str:
    """The verdict as a reader is told it: ``better, at the price of recall``."""
    word = verdict(delta)
    return f"better, at the price of {' and '.join(delta.price)}" if word == "at a price" else word


def finding_text(finding: Finding) -> str:
    """A finding as a line."""
    end = "; there is no result" if finding.no_result else ""
    return f"{finding.stage}: {finding.text}{end}"


def direction(better: str) -> str:
    """The metric's good direction, in words."""
    return f"{better} is better" if better in ("higher", "lower") else "neither is better"


def label(split: str, metric: str) -> str:
    """A row's name: ``pope popular accuracy``; what would be said twice is said once."""
    if split in ("", "all") or metric.startswith(split):
        return metric
    return f"{split.replace('_', ' ')} {metric}"


def arrow(better: str) -> str:
    """The good direction as a sign; nothing for a neutral metric."""
    return {"higher": "↑", "lower": "↓"}.get(better, "")


def share(count: int, total: int) -> str:
    """``count`` of ``total`` in percent; what is there is never called 0 %."""
    percent = 100 * count / max(1, total)
    return "< 1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def decimals(low: float, high: float) -> int:
    """Digits after the point that an interval of this width deserves (1 to 4)."""
    half = abs(high - low) / 2
    if not math.isfinite(half) or half == 0:
        return 1
    return min(4, max(1, -math.floor(math.log10(half))))


SMALL = 10.0
"""Scores below it (nats, not percents) get as many decimals as their change needs."""


def row_decimals(values: Iterable[float], deltas: Iterable[Delta]) -> int:
    """Of a table's row with these scores and changes: 1, as for percents; more for small numbers
    (nats) whose change would be shown as 0."""
    if max(map(abs, values), default=0.0) >= SMALL:
        return 1
    return max((decimals(delta.low, delta.high) for delta in deltas), default=1)


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """``value`` with ``digits`` decimals, a true minus sign, and ``+`` when ``sign`` is set."""
    if not math.isfinite(value):
        return "n/a"
    text = f"{abs(value):.{digits}f}"
    zero = float(text) == 0
    return (MINUS if value < 0 and not zero else "+" if sign and not zero else "") + text


def interval(low: float, high: float, digits: int, *, sign: bool = False) -> str:
    """``[low, high]`` written like ``number``."""
    return f"[{number(low, digits, sign=sign)}, {number(high, digits, sign=sign)}]"


def p_value(p: float) -> str:
    """``p = 0.03``, or ``p < 0.001`` for what the bootstrap can't resolve."""
    if not math.isfinite(p):
        return "p n/a"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def mcnemar(delta: Delta) -> str:
    """``McNemar p = 0.03``; empty where the test does not apply."""
    return "" if delta.mcnemar_p is None else f"McNemar {p_value(delta.mcnemar_p)}"


def needed(delta: Delta) -> str:
    """Of a change that is not significant: how many groups (pictures) would show one of its size,
    in two digits; empty where the change is significant or there is none."""
    if is_significant(delta) or delta.groups_needed is None:
        return ""
    step = 10 ** max(0, len(str(delta.groups_needed)) - 2)
    return (
        f"groups needed ≈ {math.ceil(delta.groups_needed / step) * step:,} (has {delta.groups:,})"
    )


def change(delta: Delta, *, with_benchmark: bool = False) -> str:
    """A significant change in words: ``pope popular accuracy rose by 0.7 (better)``."""
    size = number(abs(delta.value), decimals(delta.low, delta.high))
    verb = "rose" if delta.value > 0 else "fell"
    tail = f" ({in_full(delta)})" if is_significant(delta) and has_direction(delta) else ""
    before = f"{delta.benchmark} " if with_benchmark else ""
    return f"{before}{label(delta.split, delta.metric)} {verb} by {size}{tail}"


def duration(seconds: float) -> str:
    """``< 0.1 s``, ``0.4 s``, ``38 s``, ``12 min 5 s``, ``3 h 20 min``."""
    if 0 < seconds < 0.05:
        return "< 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
