"""The comparison as text: Markdown, LaTeX, CSV.

In Markdown and LaTeX, runs that differ in their seed (and name) only form a group: its change is
the mean over seeds with its standard deviation. The spread over seeds leaves out the benchmark's
own sampling error, which each run's report gives as an interval, and the mark beside the change as
a test. A table holds many tests: changes are marked by p corrected for their number (Holm).
"""

from __future__ import annotations

import csv
import fnmatch
import io
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seva_exp.benchmarks.statistics import holm
from seva_exp.compare.against import Change, Column, Measured
from seva_exp.compare.differences import differing, short_names
from seva_exp.compare.runs import FinishedRun, groups, told_apart
from seva_exp.compare.view import Comparison, in_words
from seva_exp.errors import InputError, suggest
from seva_exp.records import BASE, Delta
from seva_exp.report.verdict import SIGNIFICANCE, arrow, label

NOTE = "* p < 0.05 after Holm's correction for {} changes, (*) before it only"
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
    """One benchmark under one protocol: metrics, the base, and the change of each group; what there
    is more of goes down the page. Where groups have different bases, each stands beside its
    group."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str


def tables(runs: Sequence[FinishedRun], chosen: Sequence[str] = ()) -> list[Table]:
    """One table per benchmark and protocol; only of metrics that match one of the ``chosen``
    patterns (``chair/*``, ``vqa/mean``), if there are any. Raises InputError when one matches
    nothing."""
    grouped = groups(runs)
    known = dict.fromkeys(f"{s.split}/{s.metric}" for run in runs for s in run.report.scores)
    for pattern in chosen:
        if not fnmatch.filter(known, pattern):
            raise InputError(f"--metrics {pattern}: no such metric.{suggest(pattern, known)}")
    seeds = [", ".join(str(run.report.seed) for run in group) for group in grouped]
    titles = _titles(grouped)
    if len(set(seeds)) > 1:
        titles = [f"{name} (seed {some})" for name, some in zip(titles, seeds, strict=True)]
    scored = [score for run in runs for score in run.report.scores]
    out = []
    for name, protocol in dict.fromkeys((s.benchmark, s.protocol) for s in scored):
        mine = [s for s in scored if (s.benchmark, s.protocol) == (name, protocol)]
        metrics = dict.fromkeys((s.split, s.metric, s.better) for s in mine)
        marks, tests = _marks(metrics, grouped, name, protocol)
        shown = [m for m in metrics if _is_chosen(m, chosen)]
        cells = {m: [_cells(m, group, name, protocol) for group in grouped] for m in shown}
        if not cells:
            continue
        lines = _lines(cells, marks, titles)
        if len(lines[0]) > len(lines):
            lines = [list(line) for line in zip(*lines, strict=True)]
            lines[0][0] = ""
        title = f"{name} ({protocol})"
        if len(set(seeds)) == 1:
            title += f", seed{'s' * (',' in seeds[0])} {seeds[0]}"
        out.append(Table(title, lines[0], lines[1:], NOTE.format(tests) if tests else ""))
    return out


def _is_chosen(metric: Key, patterns: Sequence[str]) -> bool:
    name = f"{metric[0]}/{metric[1]}"
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _lines(
    cells: dict[Key, list[tuple[str, str]]], marks: dict[tuple[Key, int], str], titles: list[str]
) -> list[list[str]]:
    """A head, then a line a metric: the base, which groups may share, and each group's change."""
    measured = [i for i in range(len(titles)) if any(row[i][0] for row in cells.values())]
    shared = all(len({row[i][0] for i in measured}) == 1 for row in cells.values())
    lines = [["metric"]] + [[f"{label(k[0], k[1])} {arrow(k[2])}".strip()] for k in cells]
    for i in measured:
        base = ["base", *(row[i][0] for row in cells.values())]
        change = [titles[i], *(f"{row[i][1]}{marks.get((k, i), '')}" for k, row in cells.items())]
        for column in [base, change] if i == measured[0] or not shared else [change]:
            for line, cell in zip(lines, column, strict=True):
                line.append(cell)
    return lines


def markdown(runs: Sequence[FinishedRun], chosen: Sequence[str] = ()) -> str:
    """All tables, of the ``chosen`` metrics."""

    def one(table: Table) -> str:
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        rows = "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        note = table.note.replace("*", r"\*")
        return f"{table.title}\n\n{rows}" + (f"\n\n{note}" if note else "")

    return "\n\n".join(map(one, tables(runs, chosen)))


def latex(runs: Sequence[FinishedRun], chosen: Sequence[str] = ()) -> str:
    """All tables, of the ``chosen`` metrics, for the package booktabs."""

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

    return "\n\n".join(map(one, tables(runs, chosen)))


def _tex(cell: str) -> str:
    """With what LaTeX reserves escaped, and a negative number's sign as a minus, not a hyphen."""
    return re.sub(r"^-(?=\d)", "$-$", cell.translate(LATEX))


def _titles(grouped: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """What each group's runs are called: by what their commands do not share, or by their names;
    those of one name (given by the user, or runs of the Python API) by the fields in which they
    differ, too."""
    words = [[w for w in group[0].words if not w.startswith("seed=")] for group in grouped]
    if names := told_apart(words):
        return names
    names = [re.sub(r"_seed=\d+", "", group[0].report.name) for group in grouped]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, one in enumerate(names) if one == name]
        fields = differing([grouped[i][0].config for i in alike])
        short = short_names([*fields, "seed"])
        for place, i in enumerate(alike):
            told = {short[f]: value for f, v in fields.items() if (value := v[place]) is not None}
            names[i] = " ".join(filter(None, (name, in_words(told))))
    return names


def _marks(
    metrics: Iterable[Key], grouped: Sequence[Sequence[FinishedRun]], name: str, protocol: str
) -> tuple[dict[tuple[Key, int], str], int]:
    """What stands behind the change of each metric and group where it is significant, and how many
    changes p was corrected for: all of the benchmark, whatever is shown of them."""
    found = {
        (key, i): p
        for key in metrics
        for i, group in enumerate(grouped)
        if (p := _p(_final(key, group, name, protocol))) is not None
    }
    corrected = dict(zip(found, holm(list(found.values())), strict=True))
    marks = {cell: " (*)" for cell, p in found.items() if p < SIGNIFICANCE}
    return marks | {cell: " *" for cell, p in corrected.items() if p < SIGNIFICANCE}, len(found)


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
