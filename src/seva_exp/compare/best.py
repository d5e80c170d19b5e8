"""Which variant is best under a metric, how far it changed, and whether it is better than the
second by more than chance.

Whoever looks for the best among many will find one: so it is tested against every other variant,
paired over the same questions and seed by seed, and p is corrected for their number (Holm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from seva_exp.compare.comparison import Comparison
from seva_exp.compare.deltas import Column, joint_p, paired_changes
from seva_exp.compare.tables import digits_of, is_chosen, spread
from seva_exp.compare.variants import Variant
from seva_exp.core.records import Delta
from seva_exp.report.significance import SIGNIFICANCE

TOLD = 2
"""Metrics of a benchmark of which the best is told, where none are chosen."""


@dataclass(frozen=True)
class Best:
    """The best variant under a metric, in words: ``change`` is what it changed, with its interval
    (several seeds: their standard deviation); ``second`` the one behind it. ``p`` is corrected for
    ``tests`` variants; None where the answers of one are gone, or no seed is shared."""

    column: Column
    variant: Variant
    value: str
    change: str
    second: Variant
    p: float | None
    tests: int
    equal: bool = False
    """Whether the second has the same value."""

    @property
    def text(self) -> str:
        """One line."""
        over = f" ({self.change})" if self.change else ""
        where = f"{self.column.benchmark} {self.column.label}"
        return f"best {where}: {self.variant.title}, {self.value}{over}; {self._verdict}"

    @property
    def _verdict(self) -> str:
        second = f"the second, {self.second.title}"
        if self.equal:
            return f"equal to {second}"
        if self.p is None:
            return f"not tested against {second}: they share no answers to the same questions"
        better = "significantly better" if self.p < SIGNIFICANCE else "not significantly better"
        return f"{better} than {second} (p {self.p:.2g} after Holm's correction for {self.tests})"


Known = dict[tuple[int, int, str], list[Delta]]
"""What was computed of two models on a benchmark."""


def best(c: Comparison, chosen: Sequence[str] = ()) -> list[Best]:
    """Of each of the ``chosen`` metrics (patterns, as for the tables), else of the first two of
    each benchmark that have a good direction; nothing where there is one variant."""
    told = [column for family in c.families for column in _of_family(family.columns, chosen)]
    known: Known = {}
    return [found for column in told if (found := _best(c, column, known))]


def _of_family(columns: Sequence[Column], chosen: Sequence[str]) -> list[Column]:
    directed = [column for column in columns if column.better != "neutral"]
    return [one for one in directed if is_chosen(one, chosen)] if chosen else directed[:TOLD]


def _best(c: Comparison, column: Column, known: Known) -> Best | None:
    means = {
        number: fmean(values)
        for number, variant in enumerate(c.variants)
        if (values := _values(c, variant, column))
    }
    if len(means) < 2:
        return None
    sign = -1 if column.better == "lower" else 1
    first, second, *rest = sorted(means, key=lambda number: -sign * means[number])
    variant = c.variants[first]
    digits = digits_of(c, column)
    others = [c.variants[number] for number in (second, *rest)]
    return Best(
        column,
        variant,
        spread(_values(c, variant, column), digits),
        _change(c, variant, column, digits),
        others[0],
        _corrected(c, variant, others, column, known),
        len(others),
        means[first] == means[second],
    )


def _values(c: Comparison, variant: Variant, column: Column) -> list[float]:
    """By seed."""
    scores = (c.models[i].scores.get(column) for i in variant.models)
    return [score.value for score in scores if score]


def _change(c: Comparison, variant: Variant, column: Column, digits: int) -> str:
    """Against what the comparison compares with; empty where there is no change."""
    found = [c.changes[i][column].delta for i in variant.models if column in c.changes[i]]
    if len(found) == 1:
        one = found[0]
        value, low, high = (f"{x:+z.{digits}f}" for x in (one.value, one.low, one.high))
        return f"{value}, 95 % from {low} to {high}"
    return spread([delta.value for delta in found], digits, signed=True) if found else ""


def _corrected(
    c: Comparison, variant: Variant, others: Sequence[Variant], column: Column, known: Known
) -> float | None:
    """The p of the first of ``others`` by Holm's method over all that can be tested; those that
    cannot count as tests, too."""
    from seva_exp.benchmarks.statistics import holm

    found = [_p(c, variant, other, column, known) for other in others]
    if found[0] is None:
        return None
    return float(holm([1.0 if p is None else p for p in found])[0])


def _p(
    c: Comparison, variant: Variant, other: Variant, column: Column, known: Known
) -> float | None:
    """Of the difference of two variants, seed by seed."""
    place = dict(zip(other.seeds, other.models, strict=True))
    found = []
    for seed, one in zip(variant.seeds, variant.models, strict=True):
        if seed not in place:
            continue
        pair = (one, place[seed], column.benchmark)
        if pair not in known:
            models = c.models[one], c.models[place[seed]]
            known[pair] = paired_changes(*models, column.benchmark)
        found += [d for d in known[pair] if (d.split, d.metric) == (column.split, column.metric)]
    return joint_p(found) if found else None
