"""The comparison on disk: the page, and beside it the tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seva_exp.compare.page import render
from seva_exp.compare.runs import read_run, read_runs
from seva_exp.compare.tables import latex, markdown, to_csv
from seva_exp.compare.view import Comparison
from seva_exp.report.pages import write_whole


def write_comparison(
    folders: Sequence[Path],
    out: Path,
    against: Path | None = None,
    missing: Sequence[str] = (),
) -> tuple[Comparison, list[str]]:
    """Write ``out`` and the tables beside it, with the same stem; nothing where no run is finished.
    Returns what was compared, and why folders were left out; ``missing`` tells of runs that have no
    folder. Raises InputError when ``against`` is no finished run."""
    reference = read_run(against.resolve()) if against else None
    runs, left_out = read_runs([*folders, *([against] if against else [])])
    left_out += missing
    comparison = Comparison.of(runs, reference)
    if runs:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, render(comparison, left_out, out))
        write_whole(out.with_suffix(".csv"), to_csv(comparison))
        write_whole(out.with_suffix(".md"), markdown(runs) + "\n")
        write_whole(out.with_suffix(".tex"), latex(runs) + "\n")
    return comparison, left_out
