"""What a model took beside what it gained: answers generated, optimizer steps, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from seva_exp.runs.costs import costs_of as costs_of

COSTS = {
    "answers": "answers generated, before and between training",
    "steps": "optimizer steps",
    "seconds": "seconds of all stages but those that measure",
}
"""A cost's name in tables and the CSV, and in full."""


def known_costs(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The names of those that any model has, in the order of ``COSTS``."""
    return [name for name in COSTS if any(name in row for row in rows)]


def cost_cell(values: Sequence[float]) -> str:
    """The mean over seeds, in whole numbers; empty where there is none."""
    return f"{fmean(values):.0f}" if values else ""
