"""``python -m seva_exp.compare``: the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from seva_exp.compare.files import write_comparison
from seva_exp.compare.tables import markdown
from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError
from seva_exp.core.printable import tell
from seva_exp.core.terminal import command
from seva_exp.runs.listing import run_folder

ABOUT = """Finished runs side by side: python -m seva_exp.compare runs/*_stic* runs/*_moco*

Prints the tables (seeds together) and writes a page with all of it: which runs, which scores, what
is significant, plots, training curves, pairs, samples; and the tables as CSV, Markdown and LaTeX
beside it."""


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 when there is nothing to compare."""
    parser = command_parser("compare", ABOUT, laid_out=True)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs, or of sweeps")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page's file")
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=(),
        metavar="RUN",
        help="a run to compare the others with, or its seeds, each for the runs of its seed; else "
        "each run with its base",
    )
    parser.add_argument(
        "--cost",
        action="store_true",
        help="tables with what it took: answers, steps, seconds (the page and the CSV have it)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=(),
        metavar="METRIC",
        help="metrics of the tables, e.g. vqa/mean 'chair/*' (the page and the CSV have all)",
    )
    options = parser.parse_args(words)
    try:
        comparison, left_out = write_comparison(
            [run_folder(one) for one in options.runs],
            options.out,
            [run_folder(one) for one in options.against],
            chosen=options.metrics,
            cost=options.cost,
        )
    except InputError as error:
        return _refuse(str(error))
    for line in left_out:
        tell(f"left out: {line}")
    if not comparison.runs:
        return _refuse("there is no finished run to compare.")
    print(markdown(comparison, options.metrics, options.cost))
    for line in comparison.best:
        print(f"\n{line}")
    for line in comparison.findings:
        print(f"\nwarning: {line}")
    print(f"\npage: {os.path.relpath(options.out)}")
    return 0


def _refuse(why: str) -> int:
    tell(why)
    return 2


if __name__ == "__main__":
    command(main)
