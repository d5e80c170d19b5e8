"""Runs that differ in nothing but their seed, as one variant with the changes of all its seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from seva_exp.compare.deltas import (
    Column,
    CorrectedDelta,
    Measured,
    References,
    joint_p,
    measured,
)
from seva_exp.compare.differences import differing, in_words, short_names
from seva_exp.compare.runs import ComparedRun, distinct_names
from seva_exp.core.records import BASE, Score


@dataclass(frozen=True)
class VariantCell:
    """A variant's numbers under one metric: by seed the values that it is ``compared_with`` (each
    run's base, or the chosen runs) and the ``deltas``; of its one test ``p`` and Holm's
    ``corrected``, None where there is no change; of a gain its ``price`` with any seed."""

    compared_with: tuple[float, ...]
    deltas: tuple[float, ...]
    p: float | None
    corrected: float | None
    price: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """``models`` are the numbers of its runs' final models in the comparison, by seed."""

    title: str
    models: tuple[int, ...]
    seeds: tuple[int, ...]
    cells: dict[Column, VariantCell]


def variants(
    grouped: Sequence[Sequence[ComparedRun]],
    found: Sequence[Measured],
    changed: Sequence[dict[Column, CorrectedDelta]],
    columns: Sequence[Column],
    references: References,
) -> list[Variant]:
    """One a group of runs; ``found`` are the comparison's models, ``changed`` their changes."""
    place = {one.run.folder: i for i, one in enumerate(found) if one.model != BASE}
    out = []
    for title, runs in zip(_titles(grouped), grouped, strict=True):
        models = tuple(place[run.folder] for run in runs)
        mine = [found[i] for i in models]
        rows = [changed[i] for i in models]
        known = _compared_with(mine, references)
        cells = {}
        for column in columns:
            there = not references.models or any(column in one.scores for one in mine)
            before = [row[column].value for row in known if there and column in row]
            cells[column] = _cell(before, [row[column] for row in rows if column in row])
        out.append(Variant(title, models, tuple(run.report.seed for run in runs), cells))
    return out


def _compared_with(mine: Sequence[Measured], references: References) -> list[dict[Column, Score]]:
    """The scores of each run's base, or those of the chosen run or runs; none for a variant that is
    these alone."""
    if not references.models:
        return [measured(one.run, BASE).scores for one in mine]
    if all(references.has(one) for one in mine):
        return []
    found = [reference for one in mine if (reference := references.of(one))]
    return [one.scores for one in (found if len(references.models) > 1 else found[:1])]


def _cell(before: Sequence[float], changed: Sequence[CorrectedDelta]) -> VariantCell:
    if not changed:
        return VariantCell(tuple(before), (), None, None)
    deltas = [change.delta for change in changed]
    values = tuple(delta.value for delta in deltas)
    price = tuple(dict.fromkeys(name for delta in deltas for name in delta.price))
    return VariantCell(tuple(before), values, joint_p(deltas), changed[0].corrected, price)


def _titles(grouped: Sequence[Sequence[ComparedRun]]) -> list[str]:
    """What each group's runs are called: by what their commands say of the experiment and do not
    share, or by their names; those of one name by the fields in which they differ, too."""
    words = [[w for w in group[0].words if not w.startswith("seed=")] for group in grouped]
    if names := distinct_names(words):
        return names
    names = [re.sub(r"_seed=\d+", "", group[0].name) for group in grouped]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, one in enumerate(names) if one == name]
        fields = differing([grouped[i][0].experiment for i in alike])
        short = short_names([*fields, "seed"])
        for place, i in enumerate(alike):
            own = {short[f]: value for f, v in fields.items() if (value := v[place]) is not None}
            names[i] = " ".join(filter(None, (name, in_words(own))))
    return names
