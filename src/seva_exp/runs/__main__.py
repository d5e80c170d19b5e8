"""``python -m seva_exp.runs VERB``: what to do with finished runs and the store."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine
from seva_exp.core.printable import indented, tell
from seva_exp.core.store import Store
from seva_exp.core.terminal import command
from seva_exp.experiment.so_far import SoFar, pairs_so_far
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
    about = "the pairs of what a run has answered so far: while it works, or after a kill"
    verb = verbs.add_parser("pairs", help=about, description=about)
    verb.add_argument("run", type=Path, metavar="RUN", help="its folder, such as runs/latest")
    verb.add_argument("--limit", type=_count, default=3, help="of the latest, how many are shown")
    verb.add_argument("--json", action="store_true", help="counts and these pairs as JSON")
    verb.set_defaults(do=_pairs)
    args = parser.parse_args(words)
    try:
        return args.do(args)
    except InputError as error:
        tell(str(error))
        return 2


def _verify(args: argparse.Namespace) -> int:
    if args.runs and args.store:
        raise InputError("RUN and --store: give one of them.")
    store = args.store or Machine().store_root()
    found = verify_runs(args.runs) if args.runs else verify_store(Store(store))
    print(found.text())
    return 1 if found.faults else 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give a number from 0 on")
    return int(text)


def _pairs(args: argparse.Namespace) -> int:
    found = pairs_so_far(args.run, args.limit)
    if args.json:
        print(json.dumps(asdict(found), ensure_ascii=False, indent=1))
    else:
        print("\n".join(_lines(found)))
    return 0


def _lines(found: SoFar) -> Iterator[str]:
    """For a person."""
    counts = found.counts
    for label, (done, total) in found.answered.items():
        yield f"{label}: {done:,} of {total:,} answered"
    if found.missing:
        yield f"not begun, and in no pair here: {', '.join(found.missing)}"
    if not counts["kept_by_view"]:
        yield f"{found.stage} so far: none, since no negative view has begun"
        return
    dropped = ", ".join(f"{number:,} {reason}" for reason, number in counts["dropped"].items())
    yield (
        f"{found.stage} so far: {counts['kept']:,}, of {counts['sampled']:,} samples that all of "
        f"these have answered ({found.samples:,} in all); dropped: {dropped or 'none'}"
    )
    for pair in found.latest:
        yield f"\n{pair.sample_id} ({pair.image.path}): {indented(pair.question)}"
        yield f"  chosen: {indented(pair.chosen)}"
        for view, text in zip(pair.views, pair.rejected, strict=True):
            yield f"  {view}: {indented(text)}"


if __name__ == "__main__":
    command(main)
