"""The comparison as text: Markdown, LaTeX, CSV.

In Markdown and LaTeX, runs that differ in their seed (and name) only form a group: its change is
the mean over seeds with its standard deviation. The spread over seeds leaves out the benchmark's
own sampling error, which each run's report gives as an interval, and the mark beside the change as
a test: the page's, corrected for their number (``against``).
"""

from __future__ import annotations

import csv
import fnmatch
import io
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seva_exp.compare.comparison import Comparison, in_words
from seva_exp.compare.deltas import Change, Column, Measured, joint_p, measured
from seva_exp.compare.differences import differing, short_names
from seva_exp.compare.runs import ComparedRun, groups, told_apart
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.records import BASE
from seva_exp.report.significance import SIGNIFICANCE

NOTE = "* p < 0.05 after Holm's correction for {} changes, (*) before it only"
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
    """One benchmark under one protocol: metrics, what is compared with (the base, or the chosen
    run), and the change of each group; what there is more of goes down the page. Where groups have
    different bases, each stands beside its group."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str


@dataclass(frozen=True)
class Group:
    """The numbers of ``c.models`` that are one variant's, by seed."""

    c: Comparison
    numbers: tuple[int, ...]

    @property
    def runs(self) -> list[ComparedRun]:
        """Their runs."""
        return [self.c.models[i].run for i in self.numbers]

    def before(self, column: Column) -> list[float]:
        """What is compared with: each run's base, or the chosen run, where the group has the metric
        and is not that run alone."""
        chosen = self.c.reference
        known = [measured(run, BASE).scores for run in self.runs]
        if chosen:
            there = any(column in self.c.models[i].scores for i in self.numbers)
            known = [chosen.scores] if there and self.runs != [chosen.run] else []
        return [scores[column].value for scores in known if column in scores]

    def changes(self, column: Column) -> list[Change]:
        """Of the runs that have one."""
        rows = (self.c.changes[i] for i in self.numbers)
        return [row[column] for row in rows if column in row]

    def cells(self, column: Column) -> tuple[str, str]:
        """Both as text."""
        before = self.before(column)
        deltas = [change.delta.value for change in self.changes(column)]
        if not before or not deltas:
            return (spread(before) if before else ""), ""
        return spread(before), spread(deltas, signed=True) + self._mark(column)

    def _mark(self, column: Column) -> str:
        """Behind a change that is significant; in brackets where it is no more when corrected."""
        found = self.changes(column)
        if found[0].corrected < SIGNIFICANCE:
            return " *"
        return " (*)" if joint_p([change.delta for change in found]) < SIGNIFICANCE else ""


def tables(c: Comparison, chosen: Sequence[str] = ()) -> list[Table]:
    """One table per benchmark and protocol; only of metrics that match one of the ``chosen``
    patterns (``chair/*``, ``vqa/mean``), if there are any. Raises InputError when one matches
    nothing."""
    known = dict.fromkeys(f"{column.split}/{column.metric}" for column in c.columns)
    for pattern in chosen:
        if not fnmatch.filter(known, pattern):
            raise InputError(f"--metrics {pattern}: no such metric.{suggest(pattern, known)}")
    number = {c.models[i].run.folder: i for i in c.finals}
    grouped = [Group(c, tuple(number[run.folder] for run in some)) for some in groups(c.runs)]
    seeds = [", ".join(str(run.report.seed) for run in group.runs) for group in grouped]
    titles = _titles([group.runs for group in grouped])
    if len(set(seeds)) > 1:
        titles = [f"{name} (seed {some})" for name, some in zip(titles, seeds, strict=True)]
    out = []
    for name, protocol in dict.fromkeys((one.benchmark, one.protocol) for one in c.columns):
        mine = [one for one in c.columns if (one.benchmark, one.protocol) == (name, protocol)]
        cells = {
            column: [group.cells(column) for group in grouped]
            for column in mine
            if _is_chosen(column, chosen)
        }
        if not cells:
            continue
        lines = _lines(cells, titles, "base" if c.reference is None else c.reference_label)
        if len(lines[0]) > len(lines):
            lines = [list(line) for line in zip(*lines, strict=True)]
            lines[0][0] = ""
        title = f"{name} ({protocol})"
        if len(set(seeds)) == 1:
            title += f", seed{'s' * (',' in seeds[0])} {seeds[0]}"
        tests = {row[column].tests for row in c.changes for column in mine if column in row}
        out.append(Table(title, lines[0], lines[1:], NOTE.format(*tests) if tests else ""))
    return out


def _is_chosen(column: Column, patterns: Sequence[str]) -> bool:
    name = f"{column.split}/{column.metric}"
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _lines(
    cells: dict[Column, list[tuple[str, str]]], titles: list[str], before: str
) -> list[list[str]]:
    """A head, then a line a metric: what is compared with, which groups may share, and each group's
    change."""
    there = [i for i in range(len(titles)) if any(row[i][0] for row in cells.values())]
    shared = all(len({row[i][0] for i in there}) == 1 for row in cells.values())
    lines = [["metric"], *([column.label] for column in cells)]
    for i in there:
        base = [before, *(row[i][0] for row in cells.values())]
        change = [titles[i], *(row[i][1] for row in cells.values())]
        for column in [base, change] if i == there[0] or not shared else [change]:
            for line, cell in zip(lines, column, strict=True):
                line.append(cell)
    return lines


def markdown(c: Comparison, chosen: Sequence[str] = ()) -> str:
    """All tables, of the ``chosen`` metrics."""

    def one(table: Table) -> str:
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        rows = "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        note = table.note.replace("*", r"\*")
        return f"{table.title}\n\n{rows}" + (f"\n\n{note}" if note else "")

    return "\n\n".join(map(one, tables(c, chosen)))


def latex(c: Comparison, chosen: Sequence[str] = ()) -> str:
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

    return "\n\n".join(map(one, tables(c, chosen)))


def _tex(cell: str) -> str:
    """With what LaTeX reserves escaped, and a negative number's sign as a minus, not a hyphen."""
    return re.sub(r"^-(?=\d)", "$-$", cell.translate(LATEX))


def _titles(grouped: Sequence[Sequence[ComparedRun]]) -> list[str]:
    """What each group's runs are called: by what their commands say of the experiment and do not
    share, or by their names; those of one name by the fields in which they differ, too."""
    words = [[w for w in group[0].words if not w.startswith("seed=")] for group in grouped]
    if names := told_apart(words):
        return names
    names = [re.sub(r"_seed=\d+", "", group[0].name) for group in grouped]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, one in enumerate(names) if one == name]
        fields = differing([grouped[i][0].experiment for i in alike])
        short = short_names([*fields, "seed"])
        for place, i in enumerate(alike):
            told = {short[f]: value for f, v in fields.items() if (value := v[place]) is not None}
            names[i] = " ".join(filter(None, (name, in_words(told))))
    return names


def to_csv(comparison: Comparison) -> str:
    """One row a model: what differs, then value, interval, n and change of every metric."""
    columns = comparison.columns
    header = ["run", "folder", "model", *comparison.fields]
    header += [f"{column.id}/{part}" for column in columns for part in PARTS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for i, one in enumerate(comparison.models):
        row: list[object] = [one.run.name, one.run.folder, one.model]
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
