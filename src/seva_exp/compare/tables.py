"""The comparison as text: Markdown, LaTeX, CSV.

In Markdown and LaTeX, runs that differ in their seed (and name) only form a group: its change is
the mean over seeds with its standard deviation. The spread over seeds leaves out the benchmark's
own sampling error, which each run's report gives as an interval, and the mark beside the change as
a test: the page's, corrected for their number (``deltas``).
"""

from __future__ import annotations

import csv
import fnmatch
import io
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seva_exp.compare.comparison import Comparison
from seva_exp.compare.costs import cost_cell, known_costs
from seva_exp.compare.deltas import Column, CorrectedDelta, Measured
from seva_exp.compare.variants import Variant, VariantCell
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.printable import as_cell
from seva_exp.report.significance import SIGNIFICANCE, row_decimals

NOTE = "* p < 0.05 after Holm's correction for {} changes, (*) before it only"
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$"}
)


def spread(values: Sequence[float], digits: int, signed: bool = False) -> str:
    """The mean, and the standard deviation over seeds where there are several (a base that is the
    same for all of them has none)."""
    sign = "+" if signed else ""
    mean = f"{statistics.fmean(values):{sign}z.{digits}f}"  # z: no "-0.0"
    alone = len(values) < 2 or (not signed and len(set(values)) == 1)
    return mean if alone else f"{mean} ± {statistics.stdev(values):.{digits}f}"


@dataclass(frozen=True)
class ComparisonTable:
    """One benchmark under one protocol: metrics, what is compared with (the base, or the chosen
    run), and the change of each group; what there is more of goes down the page. Where groups have
    different bases, each stands beside its group."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str


def digits_of(c: Comparison, column: Column) -> int:
    """Decimals of a metric, the same for all runs."""
    scores = (one.scores.get(column) for one in c.models)
    changes = (row.get(column) for row in c.changes)
    return row_decimals((s.value for s in scores if s), (one.delta for one in changes if one))


def cells(cell: VariantCell, digits: int) -> tuple[str, str]:
    """What is compared with, and the change behind which a mark tells what is significant: in
    brackets where it is no more when corrected."""
    before = spread(cell.compared_with, digits) if cell.compared_with else ""
    if not before or cell.p is None or cell.corrected is None:
        return before, ""
    bare = " (*)" if cell.p < SIGNIFICANCE else ""
    mark = " *" if cell.corrected < SIGNIFICANCE else bare
    price = f" (at the price of {' and '.join(cell.price)})" if mark and cell.price else ""
    return before, spread(cell.deltas, digits, signed=True) + mark + price


def tables(c: Comparison, chosen: Sequence[str] = (), cost: bool = False) -> list[ComparisonTable]:
    """One table per benchmark and protocol; only of metrics that match one of the ``chosen``
    patterns (``chair/*``, ``vqa/mean``), if there are any; with ``cost`` also of what the models
    took. Raises InputError when a pattern matches nothing."""
    known = dict.fromkeys(f"{column.split}/{column.metric}" for column in c.columns)
    for pattern in chosen:
        if not fnmatch.filter(known, pattern):
            raise InputError(f"--metrics {pattern}: no such metric.{suggest(pattern, known)}")
    seeds = [", ".join(map(str, variant.seeds)) for variant in c.variants]
    titles = [variant.title for variant in c.variants]
    if len(set(seeds)) > 1:
        titles = [f"{name} (seed {some})" for name, some in zip(titles, seeds, strict=True)]
    out = []
    for family in c.families:
        found = [
            (column.label, [cells(variant.cells[column], digits) for variant in c.variants])
            for column in family.columns
            for digits in [digits_of(c, column)]
            if is_chosen(column, chosen)
        ]
        if not found:
            continue
        found += _costs(c) if cost else []
        lines = _lines(found, titles, _compared_with(c))
        if len(lines[0]) > len(lines):
            lines = [list(line) for line in zip(*lines, strict=True)]
            lines[0][0] = ""
        title = f"{family.benchmark} ({family.protocol})"
        if len(set(seeds)) == 1:
            title += f", seed{'s' * (',' in seeds[0])} {seeds[0]}"
        note = NOTE.format(family.tests) if family.tests else ""
        out.append(ComparisonTable(title, lines[0], lines[1:], note))
    return out


def _compared_with(c: Comparison) -> str:
    """What the runs are compared with is called as its column, with its seed where it has one and
    the runs several."""
    if not c.references.models:
        return "base"
    first = c.references.models[0]
    title = next(v.title for v in c.variants if c.models.index(first) in v.models)
    seeds = {seed for variant in c.variants for seed in variant.seeds}
    alone = len(c.references.models) == 1 and len(seeds) > 1
    return f"{title} (seed {first.run.report.seed})" if alone else title


def is_chosen(column: Column, patterns: Sequence[str]) -> bool:
    """Whether a metric matches one of the patterns, or there are none."""
    name = f"{column.split}/{column.metric}"
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _costs(c: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """As a metric's cells, with nothing to compare with."""
    return [
        (name, [("", _cost(c, variant, name)) for variant in c.variants])
        for name in known_costs(c.costs)
    ]


def _cost(c: Comparison, variant: Variant, name: str) -> str:
    return cost_cell([c.costs[i][name] for i in variant.models if name in c.costs[i]])


def _lines(
    cells: Sequence[tuple[str, list[tuple[str, str]]]], titles: list[str], before: str
) -> list[list[str]]:
    """A head, then a line a metric: what is compared with, which groups may share, and each group's
    change."""
    rows = [row for _, row in cells]
    there = [i for i in range(len(titles)) if any(row[i][0] for row in rows)]
    shared = all(len({row[i][0] for i in there}) == 1 for row in rows)
    lines = [["metric"], *([label] for label, _ in cells)]
    for i in there:
        base = [before, *(row[i][0] for row in rows)]
        change = [titles[i], *(row[i][1] for row in rows)]
        for column in [base, change] if i == there[0] or not shared else [change]:
            for line, cell in zip(lines, column, strict=True):
                line.append(cell)
    return lines


def markdown(c: Comparison, chosen: Sequence[str] = (), cost: bool = False) -> str:
    """All tables, of the ``chosen`` metrics, with ``cost`` or not."""

    def one(table: ComparisonTable) -> str:
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        rows = "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        note = table.note.replace("*", r"\*")
        return f"{table.title}\n\n{rows}" + (f"\n\n{note}" if note else "")

    return "\n\n".join(map(one, tables(c, chosen, cost)))


def latex(c: Comparison, chosen: Sequence[str] = (), cost: bool = False) -> str:
    """All tables, as ``markdown`` has them, for the package booktabs."""

    def one(table: ComparisonTable) -> str:
        lines = [" & ".join(map(_tex, row)) + r" \\" for row in table.rows]
        header = " & ".join(map(_tex, table.header)) + r" \\"
        return "\n".join(
            [
                f"% {table.title}",
                rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
                r"\toprule",
                header,
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
                *([f"% {table.note}"] if table.note else []),
            ]
        )

    return "\n\n".join(map(one, tables(c, chosen, cost)))


def _tex(cell: str) -> str:
    """With what LaTeX reserves escaped, and a negative number's sign as a minus, not a hyphen."""
    return re.sub(r"^-(?=\d)", "$-$", cell.translate(LATEX))


def to_csv(comparison: Comparison) -> str:
    """One row a model: what differs, what it took, then value, interval, n and change of every
    metric."""
    columns, costs = comparison.columns, known_costs(comparison.costs)
    header = ["run", "folder", "model", *comparison.fields, *(f"cost/{name}" for name in costs)]
    header += [f"{column.id}/{part}" for column in columns for part in PARTS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(as_cell, header))
    for i, one in enumerate(comparison.models):
        row: list[object] = [one.run.name, one.run.folder, one.model]
        row += [values[i] for values in comparison.fields.values()]
        row += [comparison.costs[i].get(name, "") for name in costs]
        for column in columns:
            row += _numbers(one, column, comparison.changes[i].get(column))
        writer.writerow(map(as_cell, row))
    return out.getvalue()


PARTS = (
    *("value", "low", "high", "n"),
    *("change", "change_low", "change_high", "p", "p_holm"),
)


def _numbers(one: Measured, column: Column, change: CorrectedDelta | None) -> Iterable[object]:
    score = one.scores.get(column)
    found: list[object] = [score.value, score.low, score.high, score.n] if score else [""] * 4
    if change is None:
        return [*found, *[""] * 5]
    delta = change.delta
    return [*found, delta.value, delta.low, delta.high, delta.p, change.corrected]
