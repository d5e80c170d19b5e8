"""The comparison on disk: the page, and beside it the tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seva_exp.compare.best import best
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
    against: Sequence[Path] = (),
    missing: Sequence[str] = (),
    chosen: Sequence[str] = (),
    cost: bool = False,
) -> tuple[Comparison, list[str]]:
    """Write ``out`` and the tables beside it, with the same stem; nothing where no run is finished.
    Returns what was compared, and why folders were left out; ``missing`` tells of runs that have no
    folder; ``chosen`` are the metrics of the tables, which have what the models took with ``cost``.
    Raises InputError when one of ``against`` is no finished run that measured something, or they
    are not the seeds that there are of one variant, ``out`` can't be a page, or there is no such
    metric."""
    if out.suffix != ".html":
        raise InputError(f"{out}: a page's name ends in .html (the tables are written beside it).")
    references = [_reference(folder) for folder in against]
    runs, left_out = ComparedRun.read_all([*folders, *against])
    left_out += missing
    _check_seeds(references, runs)
    comparison = Comparison.of(runs, references)
    if runs:
        lines = tuple(one.text for one in best(comparison, chosen))
        comparison = replace(comparison, best=lines)
        texts = {
            ".md": "\n\n".join([markdown(comparison, chosen, cost), *lines]) + "\n",
            ".tex": latex(comparison, chosen, cost) + "\n",
            ".csv": to_csv(comparison),
            ".html": render(comparison, Evidence.of(comparison), left_out, out),
        }
        _write(out, texts)
    return comparison, left_out


def _reference(folder: Path) -> ComparedRun:
    found = ComparedRun.read(followed(folder))
    if not measured(found, ALIGNED).scores:
        raise InputError(f"{folder}: this run measured nothing that others can be compared with.")
    return found


def _check_seeds(references: Sequence[ComparedRun], runs: Sequence[ComparedRun]) -> None:
    """Several references are one variant, each of another seed, and every run finds its own."""
    if len(references) < 2:
        return
    seeds = {one.report.seed for one in references}
    if len({one.variant for one in references}) > 1 or len(seeds) < len(references):
        raise InputError(
            "--against: several runs must differ in their seed and in nothing else; give one, or "
            "those of one variant."
        )
    for run in runs:
        if run.report.seed not in seeds:
            raise InputError(
                f"--against: none of these runs has the seed {run.report.seed} of {run.folder}. "
                "Give that one too, or one run for all."
            )


def _write(out: Path, texts: dict[str, str]) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            write_whole(out.with_suffix(suffix), text)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}). Give another.") from None
