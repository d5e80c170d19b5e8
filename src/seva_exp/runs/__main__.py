"""``python -m seva_exp.runs VERB``: the runs on this machine and their store: look, clean, verify.
A run goes by its folder (runs/latest), its folder's name, its name, or the beginning of either."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError
from seva_exp.core.printable import indented, one_line, tell
from seva_exp.core.records import to_line
from seva_exp.core.terminal import command, exit_code
from seva_exp.runs import verbs
from seva_exp.runs.listing import find_run, sweep_folder
from seva_exp.runs.tables import table

if TYPE_CHECKING:
    from seva_exp.experiment.so_far import SoFar


INTERRUPTED = "Interrupted. Nothing is half removed; the same command removes what is left."


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where something is damaged or could not be removed; 2 for bad input; 130 for
    an interruption."""
    args = _parser().parse_args(words)
    removes = args.do in (verbs.rm, verbs.gc)
    return exit_code(lambda: int(args.do(args)), INTERRUPTED if removes else "")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("runs", __doc__)
    found = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verb = partial(_verb, found)
    one = verb("ls", verbs.ls, "list runs, the latest first; * is significant")
    for name in ("name", "method", "model", "view", "tag"):
        one.add_argument(f"--{name}", metavar="WORD", help=f"of this {name} (* for any letters)")
    one.add_argument("--state", nargs="+", choices=verbs.STATES, help="in one of these states")
    one.add_argument("--sort", choices=verbs.SORTED, default="date")
    one.add_argument("--reverse", action="store_true")
    one.add_argument("--limit", type=_count, metavar="N", help="no more than so many")
    _json(one)
    one = verb("show", _show, "what a run is made of: config, stages, scores, where it is")
    one.add_argument("run", metavar="RUN", help="or a sweep's folder: what became of its jobs")
    _json(one)
    one = verb("why", _why, "why two runs have another key for a stage: what differs first")
    one.add_argument("stage", metavar="STAGE", help="its label, such as align or pairs")
    one.add_argument("a", metavar="A", help="a run")
    one.add_argument("b", metavar="B", help="another run")
    _json(one)
    one = verb("watch", _watch, "a page on this machine that follows runs while they work")
    one.add_argument("--port", type=_count, default=0, help="0, the default: a free one")
    one.add_argument("--open", action="store_true", help="in the browser")
    one = verb("du", verbs.du, "what takes the room in the store, and which runs hold it")
    one.add_argument("--limit", type=_count, default=10, metavar="N", help="of the runs, how many")
    _of_store(one)
    one = verb("rm", verbs.rm, "remove runs' folders; gc then frees what only they stood on")
    one.add_argument("run", nargs="+", metavar="RUN")
    _removing(one)
    one = verb("gc", verbs.gc, "remove from the store what no run names, after showing it")
    one.add_argument(
        "--keep-days", type=_days, default=0.0, metavar="N", help="keep what is younger than that"
    )
    _removing(one)
    _of_store(one, json=False)
    one = verb("tag", verbs.tag, "put tags on a run")
    one.add_argument("run", metavar="RUN")
    one.add_argument("tags", nargs="+", metavar="TAG")
    one.add_argument("--remove", action="store_true", help="take them off instead")
    one = verb("rename", verbs.rename, "call a run something else; its folder stays")
    one.add_argument("run", metavar="RUN")
    one.add_argument("name", metavar="NAME")
    one = verb("verify", _verify, "read all that the store holds (or runs stand on), tell damage")
    one.add_argument("run", nargs="*", metavar="RUN", help="finished runs")
    _json(one)
    one = verb("pairs", _pairs, "a run's pairs so far, at work or killed; --page: to look through")
    one.add_argument("run", metavar="RUN")
    one.add_argument("--limit", type=_count, default=3, help="of the latest, how many are shown")
    one.add_argument(
        "--page",
        nargs="?",
        const="",
        metavar="FILE",
        help="write a finished run's pairs as a page (pairs.html, if no FILE is given) with "
        "filter, search and keep/drop marks for filters=[marked]",
    )
    _json(one)
    return parser


def _verb(
    found: Any, name: str, do: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    """One of the command's verbs, with what all of them take."""
    one: argparse.ArgumentParser = found.add_parser(name, help=about, description=about)
    one.add_argument("--runs", type=Path, metavar="DIR", help="the runs' folder, else runs/")
    one.add_argument("--store", type=Path, metavar="DIR", help="else $SEVA_EXP_STORE or runs/store")
    one.set_defaults(do=do)
    return one


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")


def _removing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    _json(parser)


def _of_store(parser: argparse.ArgumentParser, json: bool = True) -> None:
    parser.add_argument(
        "--forget",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of runs that used the store and were deleted since",
    )
    if json:
        _json(parser)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give a number from 0 on")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: give a number of days from 0 on")
    return days


def _show(args: argparse.Namespace) -> int:
    from seva_exp.experiment.shown import shown_run

    folder, store = verbs.roots(args)
    if sweep := sweep_folder(args.run, folder):
        return _show_sweep(sweep, args.json)
    found = shown_run(find_run(args.run, folder), store)
    if args.json:
        verbs.say_json(found.to_json())
    else:
        print("\n".join(found.lines()))
    return 0


def _show_sweep(folder: Path, json: bool) -> int:
    """Its jobs, and what became of them: one whose process was killed is ``stopped``."""
    from seva_exp.command.sweep import Sweep

    records = Sweep(folder, print, tell).records()
    if json:
        verbs.say_json([asdict(record) for record in records])
        return 0
    rows = [
        (str(one.number), one.state, " ".join(one.overrides), Path(one.ended.run).name)
        for one in records
    ]
    print(f"sweep {folder}\n{table(('job', 'state', 'overrides', 'run'), rows, (0,), (2, 3))}")
    for one in records:
        if one.ended.message:
            print(f"job {one.number}: {indented(one.ended.message)}")
    return 0


def _why(args: argparse.Namespace) -> int:
    from seva_exp.experiment.why import why

    folder, _ = verbs.roots(args)
    found = why(args.stage, find_run(args.a, folder), find_run(args.b, folder))
    if args.json:
        verbs.say_json(found.to_json())
    else:
        print("\n".join(found.lines()))
    return 0


def _watch(args: argparse.Namespace) -> int:
    from seva_exp.watch.server import serve

    return serve(verbs.roots(args)[0], args.port, args.open)


def _verify(args: argparse.Namespace) -> int:
    from seva_exp.core.store import Store
    from seva_exp.runs.verify import verify_runs, verify_store

    if args.run and args.store:
        raise InputError("RUN and --store: give one of them.")
    folder, store = verbs.roots(args)
    runs = [find_run(one, folder).path for one in args.run]
    found = verify_runs(runs) if runs else verify_store(Store(store))
    if args.json:
        verbs.say_json(json.loads(json.dumps(asdict(found), default=str)))
    else:
        print(found.text())
    return 1 if found.faults else 0


def _pairs(args: argparse.Namespace) -> int:
    from seva_exp.experiment.so_far import pairs_so_far

    folder = find_run(args.run, verbs.roots(args)[0]).path
    if args.page is not None:
        return _pairs_page(folder, args)
    found = pairs_so_far(folder, args.limit)
    if args.json:
        rows = [json.loads(to_line(pair)) for pair in found.latest]  # as they stand in a file
        verbs.say_json(asdict(found) | {"latest": rows})
    else:
        print("\n".join(_lines(found)))
    return 0


def _pairs_page(folder: Path, args: argparse.Namespace) -> int:
    from seva_exp.report.pairs_page import write_as
    from seva_exp.runs.pair_files import read_pairs_run

    file = write_as(read_pairs_run(folder), args.page)
    if args.json:
        verbs.say_json({"page": str(file)})
    else:
        print(f"page: {one_line(str(file))}")
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
