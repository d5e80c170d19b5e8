"""The comparison as text: Markdown, LaTeX, CSV.

In Markdown and LaTeX, runs that differ in their seed (and name) only form a group: its change is
the mean over seeds with its standard deviation. The spread over seeds leaves out the benchmark's
own sampling error, which each run's report gives as an interval, and the p beside the change as a
test. A table holds many tests: p is also shown corrected for their number (Holm), and by that
changes are marked.
"""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seva_exp.benchmarks.statistics import holm
from seva_exp.compare.against import Change, Column, Measured
from seva_exp.compare.differences import differing, short_names
from seva_exp.compare.runs import FinishedRun, groups
from seva_exp.compare.view import Comparison, in_words
from seva_exp.records import BASE, Delta
from seva_exp.report.verdict import SIGNIFICANCE, arrow, label, p_value

NOTE = "* p < 0.05 after Holm's correction for the {} changes of this table"
Key = tuple[str, str, str]
"""A metric: split, name, which direction is better."""
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$"}
)


def spread(values: Sequence[float], signed: bool = False) -> str:
    """The mean, and the standard deviation over seeds where there are several (a base that is the
    same for all of them has none)."""
    sign = "+" if signed else ""
    mean = f"{statistics.fmean(values):{sign}z.1f}"  # z: no "-0.0"
    alone = len(values) < 2 or (not signed and len(set(values)) == 1)
    return mean if alone else f"{mean} ± {statistics.stdev(values):.1f}"


@dataclass(frozen=True)
class Table:
    """One benchmark under one protocol: a row a metric; the base, and the change of each group.
    Where groups have different bases, each stands beside its group."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str


def tables(runs: Sequence[FinishedRun]) -> list[Table]:
    """One table per benchmark and protocol."""
    grouped = groups(runs)
    titles = _titles(grouped)
    scored = [score for run in runs for score in run.report.scores]
    out = []
    for name, protocol in dict.fromkeys((s.benchmark, s.protocol) for s in scored):
        mine = [s for s in scored if (s.benchmark, s.protocol) == (name, protocol)]
        metrics = dict.fromkeys((s.split, s.metric, s.better) for s in mine)
        cells = {key: [_cells(key, group, name, protocol) for group in grouped] for key in metrics}
        tested = _tested(metrics, grouped, name, protocol)
        measured = [i for i in range(len(grouped)) if any(row[i][0] for row in cells.values())]
        shared = all(len({row[i][0] for i in measured}) == 1 for row in cells.values())
        lines = [["metric"]] + [[f"{label(k[0], k[1])} {arrow(k[2])}".strip()] for k in cells]
        for i in measured:
            base = (
                []
                if shared and i != measured[0]
                else [["base", *(r[i][0] for r in cells.values())]]
            )
            told = (f"{row[i][1]}{tested.get((key, i), '')}" for key, row in cells.items())
            change = [titles[i], *told]
            for column in (*base, change):
                for line, cell in zip(lines, column, strict=True):
                    line.append(cell)
        note = NOTE.format(len(tested)) if tested else ""
        out.append(Table(f"{name} ({protocol})", lines[0], lines[1:], note))
    return out


def markdown(runs: Sequence[FinishedRun]) -> str:
    """All tables."""

    def one(table: Table) -> str:
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{table.title}\n\n{rows}" + (f"\n\n\\{table.note}" if table.note else "")

    return "\n\n".join(map(one, tables(runs)))


def latex(runs: Sequence[FinishedRun]) -> str:
    """All tables, for the package booktabs."""

    def one(table: Table) -> str:
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

    return "\n\n".join(map(one, tables(runs)))


def _tex(cell: str) -> str:
    """With what LaTeX reserves escaped, and a negative number's sign as a minus, not a hyphen."""
    return re.sub(r"^-(?=\d)", "$-$", cell.translate(LATEX))


def _titles(grouped: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """What each group's runs are called, and their seeds; those of one name (runs that were begun
    one by one, or given a ``name``) by the fields in which they differ, too."""
    names = [re.sub(r"_seed=\d+", "", group[0].report.name) for group in grouped]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, one in enumerate(names) if one == name]
        fields = differing([grouped[i][0].config for i in alike])
        short = short_names(fields)
        for place, i in enumerate(alike):
            told = {short[f]: value for f, v in fields.items() if (value := v[place]) is not None}
            names[i] = " ".join(filter(None, (name, in_words(told))))
    return [
        f"{name} (seed {', '.join(str(run.report.seed) for run in group)})"
        for name, group in zip(names, grouped, strict=True)
    ]


def _tested(
    metrics: Iterable[Key], grouped: Sequence[Sequence[FinishedRun]], name: str, protocol: str
) -> dict[tuple[Key, int], str]:
    """What stands behind the change of each metric and group: its p, also corrected for the number
    of changes in the table, and a mark by that."""
    found = {
        (key, i): p
        for key in metrics
        for i, group in enumerate(grouped)
        if (p := _p(_final(key, group, name, protocol))) is not None
    }
    return {
        cell: f" ({p_value(p)}, Holm {p_value(corrected)}){' *' * (corrected < SIGNIFICANCE)}"
        for (cell, p), corrected in zip(found.items(), holm(list(found.values())), strict=True)
    }


def _p(deltas: Sequence[Delta]) -> float | None:
    """The largest p of the seeds, and 1 where they differ in direction: every seed shows it."""
    if len({delta.value > 0 for delta in deltas}) > 1:
        return 1.0
    return max((delta.p for delta in deltas), default=None)


def _final(key: Key, group: Sequence[FinishedRun], name: str, protocol: str) -> list[Delta]:
    """The final model's change in each of the group's runs that measured it."""
    return [
        d
        for run in group
        if any((s.benchmark, s.protocol) == (name, protocol) for s in run.report.scores)
        for d in run.report.final_deltas
        if (d.benchmark, d.split, d.metric) == (name, *key[:2])
    ]


def _cells(key: Key, group: Sequence[FinishedRun], name: str, protocol: str) -> tuple[str, str]:
    """The base's value and the final model's change, over the group's seeds."""
    base = [
        s.value
        for run in group
        for s in run.report.scores
        if (s.benchmark, s.protocol, s.split, s.metric, s.model) == (name, protocol, *key[:2], BASE)
    ]
    if not base:
        return "", ""
    change = [delta.value for delta in _final(key, group, name, protocol)]
    return spread(base), spread(change, signed=True) if change else ""


def to_csv(comparison: Comparison) -> str:
    """One row a model: what differs, then value, interval, n and change of every metric."""
    columns = comparison.columns
    header = ["run", "folder", "model", *comparison.fields]
    header += [f"{column.id}/{part}" for column in columns for part in PARTS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for i, one in enumerate(comparison.models):
        row: list[object] = [one.run.report.name, one.run.folder, one.model]
        row += [values[i] for values in comparison.fields.values()]
        for column in columns:
            row += _numbers(one, column, comparison.changes[i].get(column))
        writer.writerow(row)
    return out.getvalue()


PARTS = (
    *("value", "low", "high", "n"),
    *("change", "change_low", "change_high", "p", "p_holm"),
)


def _numbers(one: Measured, column: Column, change: Change | None) -> Iterable[object]:
    score = one.scores.get(column)
    found: list[object] = [score.value, score.low, score.high, score.n] if score else [""] * 4
    if change is None:
        return [*found, *[""] * 5]
    delta = change.delta
    return [*found, delta.value, delta.low, delta.high, delta.p, change.corrected]
