"""Ship a finished run's model: `python -m seva_exp.ship RUN --merge --out DIR`.

--merge writes a whole model in transformers' layout, with names of weights that vLLM loads;
--adapter the LoRA in PEFT's. Both with the processor and a model card: command, data, pairs, scores
with intervals and protocol, limits, licence. Nothing leaves this machine without --push.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.printable import one_line
from seva_exp.core.runtime import settle
from seva_exp.core.spec import Json
from seva_exp.core.terminal import command, exit_code
from seva_exp.runs.listing import run_argument
from seva_exp.runs.reader import FinishedRun
from seva_exp.runs.trained import read_trained
from seva_exp.ship.card import ADAPTER, MERGED, Shipped, card, is_hub_id
from seva_exp.ship.folders import (
    CARD,
    SIZES,
    Weights,
    asked_as,
    check_out,
    check_room,
    computed_in,
    finish,
    size,
    whole_folder,
    write_adapter_folder,
    write_merged_folder,
)
from seva_exp.ship.hub import agreed, check_push, push
from seva_exp.ship.licence import base_licence


def main(words: Sequence[str] | None = None) -> int:
    """The command line. 0: done; 2: bad input; 1: weights that cannot be loaded, an upload that
    failed; 130: interrupted."""
    options = _parser().parse_args(words)

    def interrupted() -> str:
        made = (options.out.expanduser() / CARD).is_file()
        return f"Interrupted: {'the folder is whole' if made else 'nothing was made'}."

    return exit_code(lambda: ship(options), interrupted)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("ship", __doc__, laid_out=True)
    run_argument(parser)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--merge", action="store_true", help="a whole model: weights with the change")
    form.add_argument("--adapter", action="store_true", help="the LoRA alone, over its base model")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty")
    parser.add_argument(
        "--dtype",
        choices=SIZES,
        help="of merged weights; else that of the run, or float32 where rounding would lose much",
    )
    parser.add_argument(
        "--base", metavar="ID", help="the base model's hub id, where it is a folder"
    )
    parser.add_argument("--licence", metavar="NAME", help="where the base model's card has none")
    parser.add_argument("--push", metavar="ORG/NAME", help="upload it to the hub, after a question")
    parser.add_argument("--public", action="store_true", help="a new repository is not private")
    parser.add_argument("--yes", action="store_true", help="upload without the question")
    return parser


def ship(options: argparse.Namespace) -> None:
    """Look at everything first, then write, then upload. Raises InputError and StageError."""
    settle()
    run = read_trained(options.run)
    out = check_out(options.out)
    model = run.model()
    if options.adapter and options.dtype:
        raise InputError("--dtype: an adapter keeps the numbers that were trained; leave it out.")
    if options.base and not is_hub_id(options.base):
        raise InputError(f"--base={options.base}: a hub id is needed: organisation/name.")
    if options.merge:
        check_room(out, model, options.dtype or "float32")
    model.prepare()
    if options.push:
        check_push(options.push, options.yes)
    base = options.base or model.location()
    licence = {"license": options.licence} if options.licence else base_licence(model)
    with whole_folder(out) as work:
        weights = _write(run, options, base, work)
        form = MERGED if options.merge else ADAPTER
        finish(work, card(run, Shipped(form, weights, base, licence, asked_as(model), model.ours)))
        _refuse_what_changed(run)
    _tell(run, options, out, weights, licence)
    if options.push:
        _push(options, out)


def _write(run: FinishedRun, options: argparse.Namespace, base: str, work: Path) -> Weights:
    if options.merge:
        return write_merged_folder(run, options.dtype, work)
    return write_adapter_folder(run, base, work)


def _refuse_what_changed(run: FinishedRun) -> None:
    """Raises StageError where the adapter is not whole any more, after what was read of it."""
    assert run.trained
    if run.manifest(run.trained.name) is None:
        raise StageError(f"{run.adapter}: was changed while it was read; nothing was made.")


def _tell(
    run: FinishedRun, options: argparse.Namespace, out: Path, weights: Weights, licence: Json
) -> None:
    what = "merged model" if options.merge else "adapter"
    print(f"{what}: {one_line(str(out))}")
    print(f"  {weights.dtype}, {size(out) / 1e6:,.1f} MB; model card: {CARD}")
    own = computed_in(run)
    if options.merge and options.dtype is None and weights.dtype != own:
        print(f"  float32, since {own} would round much of the trained change away")
    if weights.lost > 0.005:
        print(f"  rounding to {weights.dtype} takes up to {weights.lost:.0%} of a layer's change")
    if not licence:
        print("  the base model's licence is not known here: give --licence NAME, or edit the card")
    if options.adapter and not is_hub_id(options.base or run.model().location()):
        print("  the base model is a folder of this machine: --base ID names it for others")


def _push(options: argparse.Namespace, out: Path) -> None:
    if not options.yes and not agreed(options.push, options.public, size(out) / 1e6):
        print(f"not uploaded; the folder stays: {one_line(str(out))}")
        return
    print(f"uploaded: {push(out, options.push, options.public)}")


if __name__ == "__main__":
    command(main)
