"""``python -m seva_exp.runs VERB``: what to do with finished runs and the store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine
from seva_exp.core.store import Store
from seva_exp.core.terminal import command
from seva_exp.runs.verify import verify_runs, verify_store


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where something is damaged; 2 for bad input."""
    parser = argparse.ArgumentParser("python -m seva_exp.runs", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    about = "read all that the store holds (or runs stand on), and tell what is damaged"
    verb = verbs.add_parser("verify", help=about, description=about)
    verb.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of finished runs")
    verb.add_argument("--store", type=Path, help="else $SEVA_EXP_STORE or runs/store")
    verb.set_defaults(do=_verify)
    args = parser.parse_args(words)
    try:
        return args.do(args)
    except InputError as error:
        print(f"seva_exp: {error}", file=sys.stderr)
        return 2


def _verify(args: argparse.Namespace) -> int:
    if args.runs and args.store:
        raise InputError("RUN and --store: give one of them.")
    store = args.store or Machine().store_root()
    found = verify_runs(args.runs) if args.runs else verify_store(Store(store))
    print(found.text())
    return 1 if found.faults else 0


if __name__ == "__main__":
    command(main)
