"""``python -m seva_exp.dashboard [RUN ...]``: write a W&B workspace and report for these runs.

What to draw is read from finished runs on this machine (by default all in runs/): the fields in
which they differ and the scores that they have.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from seva_exp.compare.runs import ComparedRun
from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError
from seva_exp.core.printable import tell
from seva_exp.core.terminal import command, exit_code
from seva_exp.dashboard.overview import overview_of
from seva_exp.tracking.spec import WandbTracker
from seva_exp.tracking.wandb_mode import choose_mode


def main(words: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    return exit_code(lambda: _write(_arguments(words)))


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    description = (__doc__ or "").partition(": ")[2]
    parser = command_parser("dashboard", description)
    add = parser.add_argument
    add(
        "runs",
        nargs="*",
        type=Path,
        help="folders of finished runs, or of sweeps (default: runs/*)",
    )
    add("--project", default="seva_exp", help="W&B project (tracker.project)")
    add("--entity", help="W&B user or team (default: $WANDB_ENTITY, or the account's own)")
    add("--group", help="only runs of this group: a sweep's name")
    add("--dry-run", action="store_true", help="print what would be sent, as JSON; no network")
    add("--out", type=Path, metavar="FILE", help="write that JSON into a file; no network")
    return parser.parse_args(words)


def _write(wanted: argparse.Namespace) -> None:
    if find_spec("wandb_workspaces") is None:
        raise InputError("wandb-workspaces is not installed: pip install 'seva_exp[dashboard]'.")
    runs, left_out = ComparedRun.read_all(wanted.runs or sorted(Path("runs").glob("*")))
    for why in left_out if wanted.runs else ():
        tell(f"left out: {why}")
    if not runs:
        raise InputError("no finished run: give folders such as runs/2026-*.")
    overview = overview_of(runs)
    offline = wanted.dry_run or wanted.out
    mode, why = choose_mode(WandbTracker(mode="online"))
    if not offline and mode != "online":
        raise InputError(f"W&B cannot be reached: {why}. --dry-run prints what would be sent.")
    from seva_exp.dashboard import pages

    entity = wanted.entity or os.environ.get("WANDB_ENTITY") or ("" if offline else _own_entity())
    about = (overview, entity, wanted.project, wanted.group)
    workspace, report = pages.workspace(*about), pages.report(*about)
    if not offline:
        workspace.save()
        report.save()
        print(f"workspace: {workspace.url}\nreport: {report.url}")
        return
    text = json.dumps(pages.as_json(workspace, report), indent=1)
    if wanted.out:
        wanted.out.write_text(text + "\n", encoding="utf-8")
    if wanted.dry_run:
        print(text)


def _own_entity() -> str:
    import wandb

    return str(wandb.Api().default_entity)


if __name__ == "__main__":
    command(main)
