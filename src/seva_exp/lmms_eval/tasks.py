"""Which tasks there are: lmms-eval's own by a packaged list, a person's by their YAML files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from seva_exp.core.errors import InputError, nearest

PACKAGED = Path(__file__).parent / "tasks.txt"
"""Names of the tasks, groups and tags of the version that is installed, a line each."""
_NAME = re.compile(r"^(?:task|group|tag): *['\"]?([\w.+/-]+)['\"]?\s*(?:#.*)?$", re.MULTILINE)


def check_tasks(tasks: Sequence[str], include: Path | None) -> None:
    """Raises InputError for a name that neither lmms-eval has nor a file below ``include``, and
    for no name."""
    if not tasks:
        raise InputError("--tasks: names no task, one at least is needed (--tasks pope,mme).")
    own = set(_own(include)) if include else set()
    packaged = set(PACKAGED.read_text(encoding="utf-8").split())
    known = packaged | own
    for task in tasks:
        if task in packaged & own:  # the harness would take its own, without a word
            raise InputError(
                f"--tasks {task}: lmms-eval has a task of this name, and --include-path {include} "
                "too. Give yours another name."
            )
        if task not in known:
            match = nearest(task, known)
            hint = f" Did you mean '{match}'?" if match else ""
            raise InputError(
                f"--tasks {task}: no such task.{hint} lmms-eval's {len(packaged)} are in "
                f"{PACKAGED}; " + _own_tasks_hint(include, own)
            )


def _own_tasks_hint(include: Path | None, own: set[str]) -> str:
    if include is None:
        return "one of your own is found with --include-path."
    return f"--include-path {include} has: {', '.join(sorted(own)) or 'none'}."


def _own(include: Path) -> Iterator[str]:
    """By text: the harness's YAML has tags (``!function``) that only the harness understands."""
    for file in sorted(include.rglob("*.yaml")):
        yield from _NAME.findall(file.read_text(encoding="utf-8", errors="replace"))
