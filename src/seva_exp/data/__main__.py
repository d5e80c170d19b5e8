"""`python -m seva_exp.data check`: which benchmarks' files are there, and where the others go.
`python -m seva_exp.data check --questions FILE`: a table of questions of one's own.
`python -m seva_exp.data make-samples DIR`: a small benchmark of every kind in its official format.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from seva_exp.benchmarks.inventory import Entry, checked, inventory, own_questions
from seva_exp.benchmarks.samples import make_samples
from seva_exp.core.arguments import command_parser
from seva_exp.core.printable import indented, printable
from seva_exp.core.progress import progress
from seva_exp.core.terminal import command, exit_code
from seva_exp.inputs.user_paths import data_root


def main(words: Sequence[str] | None = None) -> int:
    """The command line. 0: what is there is whole; 2: something is not."""
    parser = command_parser("data", (__doc__ or "").replace("`", ""), laid_out=True)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="list the official benchmarks' files")
    check.add_argument("data_root", nargs="?", help="where they lie; else $SEVA_EXP_DATA")
    check.add_argument("--deep", action="store_true", help="open every picture")
    check.add_argument(
        "--questions",
        nargs="+",
        metavar=("FILE", "FIELD=VALUE"),
        help="look at this table of your own alone (or the YAML file of such a benchmark)",
    )
    samples = commands.add_parser("make-samples", help="write small benchmarks of every kind")
    samples.add_argument("folder", type=Path, help="a new folder")
    options = parser.parse_args(words)
    making = options.command == "make-samples"
    return exit_code(lambda: _make(options.folder) if making else _check(options))


def _make(folder: Path) -> int:
    make_samples(folder)
    print(
        f"Small benchmarks of every kind lie in {folder}. Run them:\n"
        f"  python -m seva_exp +aug=diffusion_noise benchmark=seva_suite data_root={folder}"
    )
    return 0


def _check(options: argparse.Namespace) -> int:
    deep = partial(progress, "auto") if options.deep else None
    if options.questions:
        return _tell([checked(own_questions(options.questions), deep)])
    root = data_root(options.data_root)
    if root is None:
        print("No data root is given (check DIR, or $SEVA_EXP_DATA); this is where files go.\n")
    return _tell(inventory(root, deep))


def _tell(entries: Iterable[Entry]) -> int:
    damaged = False
    for entry in entries:
        print(printable(f"{entry.name:12} {entry.state:8} {indented(entry.detail)}"), flush=True)
        damaged |= entry.state == "damaged"
    return 2 if damaged else 0


if __name__ == "__main__":
    command(main)
