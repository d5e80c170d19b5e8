"""What a better score may be bought with: metrics that guard others. No heavy import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from seva_exp.core.records import Delta

Guards = Mapping[str, tuple[str, ...]]
"""A metric's name -> those of the same split that guard it: it can be made better by letting them
fall (what is not said is not wrong)."""
SIGNIFICANCE = 0.05
"""A change counts as significant when its two-sided p is below this."""


def is_significant(delta: Delta) -> bool:
    """Whether the change is more than chance would often give."""
    return delta.p < SIGNIFICANCE and delta.value != 0


def is_gain(delta: Delta) -> bool:
    """Whether it went the good way; of a metric without one (a length) up counts as good."""
    return (delta.value < 0) == (delta.better == "lower")


def priced(deltas: Iterable[Delta], guards: Guards) -> list[Delta]:
    """The deltas of one benchmark, each that is better with its ``price``: those of its guards that
    became significantly worse, or less."""
    found = list(deltas)
    fallen = {(d.model, d.split, d.metric) for d in found if is_significant(d) and not is_gain(d)}
    return [
        replace(
            d,
            price=tuple(
                name
                for name in guards.get(d.metric, ())
                if is_gain(d) and (d.model, d.split, name) in fallen
            ),
        )
        for d in found
    ]
