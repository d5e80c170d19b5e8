"""The comparison on disk: the page, and beside it the tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seva_exp.compare.comparison import Comparison
from seva_exp.compare.deltas import measured
from seva_exp.compare.evidence import Evidence
from seva_exp.compare.page import render
from seva_exp.compare.runs import ComparedRun
from seva_exp.compare.tables import latex, markdown, to_csv
from seva_exp.core.errors import InputError
from seva_exp.core.files import write_whole
from seva_exp.core.records import ALIGNED
from seva_exp.runs.links import followed


def write_comparison(
    folders: Sequence[Path],
    out: Path,
    against: Path | None = None,
    missing: Sequence[str] = (),
    chosen: Sequence[str] = (),
) -> tuple[Comparison, list[str]]:
    """Write ``out`` and the tables beside it, with the same stem; nothing where no run is finished.
    Returns what was compared, and why folders were left out; ``missing`` tells of runs that have no
    folder; ``chosen`` are the metrics of the tables. Raises InputError when ``against`` is no
    finished run that measured something, ``out`` can't be a page, or there is no such metric."""
    if out.suffix != ".html":
        raise InputError(f"{out}: a page's name ends in .html (the tables are written beside it).")
    reference = ComparedRun.read(followed(against)) if against else None
    if reference and not measured(reference, ALIGNED).scores:
        raise InputError(f"{against}: this run measured nothing that others can be compared with.")
    runs, left_out = ComparedRun.read_all([*folders, *([against] if against else [])])
    left_out += missing
    comparison = Comparison.of(runs, reference)
    if runs:
        texts = {
            ".md": markdown(comparison, chosen) + "\n",
            ".tex": latex(comparison, chosen) + "\n",
            ".csv": to_csv(comparison),
            ".html": render(comparison, Evidence.of(comparison), left_out, out),
        }
        _write(out, texts)
    return comparison, left_out


def _write(out: Path, texts: dict[str, str]) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            write_whole(out.with_suffix(suffix), text)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}). Give another.") from None
