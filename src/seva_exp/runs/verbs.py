"""What ``python -m seva_exp.runs`` says and does of runs and the store: the verbs that need neither
a model nor a stage. Each returns its exit code."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.machine import Machine
from seva_exp.core.printable import error_text, one_line, tell
from seva_exp.core.spec import Json
from seva_exp.runs.collect import Garbage, collect, garbage, remove_run
from seva_exp.runs.holdings import Held, Holdings, used_by
from seva_exp.runs.listing import RunFolder, find_run, runs_in
from seva_exp.runs.removal import bytes_of
from seva_exp.runs.tables import Row, list_text, rows_of, size, table

STATES = ("running", "done", "failed", "stopped")
SORTED = ("date", "name", "method", "model", "pairs", "score", "state", "size")


def roots(args: argparse.Namespace) -> tuple[Path, Path]:
    """The folder of runs and the store that a command is about."""
    machine = Machine(runs=str(args.runs)) if args.runs else Machine()
    return machine.runs_root(), args.store or machine.store_root()


def say_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def ls(args: argparse.Namespace) -> int:
    """Runs in a table, the latest first."""
    folder, store = roots(args)
    runs = runs_in(folder)
    for name in ("method", "model", "view", "tag", "name"):
        if wanted := getattr(args, name):
            runs = _matching(runs, name, wanted)
    runs = [run for run in runs if not args.state or run.state in args.state]
    holdings = Holdings(store, [folder], strict=False) if store.is_dir() else None
    rows = rows_of(runs[: args.limit] if args.sort == "date" else runs, holdings)
    rows = _sorted(rows, args.sort)[: args.limit]
    rows = rows[::-1] if args.reverse else rows
    if args.json:
        say_json([row.to_json() for row in rows])
    elif rows:
        print(list_text(rows))
    else:
        print(f"no run in {folder}" + (" is such a one" if any(_filters(args)) else ""))
    return 0


def _filters(args: argparse.Namespace) -> list[object]:
    return [args.method, args.model, args.view, args.tag, args.name, args.state]


_VALUES: dict[str, Callable[[RunFolder], Sequence[str]]] = {
    "method": lambda run: [run.facts["method"]],
    "model": lambda run: [run.facts["model"]],
    "view": lambda run: list(run.facts["views"]),
    "tag": lambda run: run.tags,
    "name": lambda run: [*run.names, run.path.name],
}


def _matching(runs: Sequence[RunFolder], field: str, wanted: str) -> list[RunFolder]:
    """Those of which a value is the wanted one, or matches it as a pattern (``*``). Raises
    InputError where no run has one."""
    known = {run.path: _VALUES[field](run) for run in runs}
    pattern = wanted.casefold()
    found = [
        run
        for run in runs
        if any(fnmatch.fnmatchcase(value.casefold(), pattern) for value in known[run.path])
    ]
    if not found and runs:
        values = {value for some in known.values() for value in some if value}
        near = suggest(wanted, values) if len(values) <= 30 else ""
        raise InputError(f"--{field} {one_line(wanted)}: no such run.{near}")
    return found


def _sorted(rows: list[Row], by: str) -> list[Row]:
    """Texts from a to z, numbers the largest first, dates the latest."""
    keys: dict[str, Callable[[Row], object]] = {
        "name": lambda row: row.run.name.casefold(),
        "method": lambda row: row.run.facts["method"],
        "model": lambda row: row.run.facts["model"],
        "state": lambda row: STATES.index(row.run.state),
        "pairs": lambda row: -(row.pairs or 0),
        "size": lambda row: -row.own,
        "score": _best,
    }
    return sorted(rows, key=keys[by]) if by in keys else rows  # type: ignore[arg-type]


def _best(row: Row) -> tuple[bool, float]:
    """Those without a score last."""
    first = next(iter(row.scores), None)
    if first is None:
        return True, 0.0
    value = first.value if first.change is None else first.change
    return False, value if first.better == "lower" else -value


def tag(args: argparse.Namespace) -> int:
    """Tags put on a run, or taken off."""
    run = find_run(args.run, roots(args)[0])
    for one in args.tags:
        if not one.strip() or len(one) > 100 or one != one.strip() or not one.isprintable():
            raise InputError(f"{one!r}: a tag has 1 to 100 characters, printable, no space around.")
    if missing := set(args.tags) - set(run.tags) if args.remove else set():
        known = suggest(min(missing), run.tags)
        raise InputError(f"{one_line(min(missing))}: {run.name} has no such tag.{known}")
    _relabel(run, add=() if args.remove else args.tags, less=args.tags if args.remove else ())
    print(f"{one_line(run.name)}: {', '.join(map(one_line, run.tags)) or 'no tags'}")
    return 0


def rename(args: argparse.Namespace) -> int:
    """Another name; the folder keeps its own, which sweeps, links and pages know."""
    run = find_run(args.run, roots(args)[0])
    name = args.name.strip()
    if not name or len(name) > 200 or not name.isprintable() or "/" in name:
        raise InputError(f"{args.name!r}: a name has 1 to 200 printable characters and no '/'.")
    before = run.name
    _relabel(run, name=name)
    print(f"{one_line(before)} is called {name} now (its folder stays {run.path.name})")
    return 0


def _relabel(run: RunFolder, **changes: object) -> None:
    try:
        run.relabel(**changes)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"{run.path}: cannot be written to ({error_text(error)}).") from None


def rm(args: argparse.Namespace) -> int:
    """Runs' folders removed; what they stand on in the store is left to ``gc``."""
    folder, _ = roots(args)
    runs = {run.path: run for run in (find_run(one, folder) for one in args.run)}
    for run in runs.values():
        if not run.path.is_relative_to(folder.resolve()):
            raise InputError(f"{run.path}: lies outside {folder}. Give --runs {run.path.parent}.")
        if run.state == "running":
            raise InputError(f"{run.path.name}: this run is at work. End it first (Ctrl-C).")
    sizes = {path: bytes_of(path) for path in runs}
    if args.json and not args.yes:
        say_json([{"run": str(path), "bytes": sizes[path]} for path in runs])
        return 0
    for run in runs.values():
        unsent = "; holds W&B data that may not be uploaded yet" if _unsent(run) else ""
        if not args.json:
            print(f"{run.path}  {size(sizes[run.path])}{unsent}")
    if not _agreed(args, f"Remove {_count(len(runs), 'run')}?"):
        return 0
    code = 0
    for run in runs.values():
        try:
            remove_run(run)
        except OSError as error:
            tell(f"{run.path}: {error_text(error)}")
            code = 1
    if args.json:
        say_json([{"run": str(path), "bytes": sizes[path]} for path in runs])
    elif not code:
        print(
            f"removed {_count(len(runs), 'run')}; python -m seva_exp.runs gc frees what only",
            end="",
        )
        print(f" {'it' if len(runs) == 1 else 'they'} stood on in the store")
    return code


def _unsent(run: RunFolder) -> bool:
    """Whether W&B wrote offline data that nobody has synced."""
    folders = (run.path / "wandb").glob("offline-run-*")
    return any(not list(folder.glob("*.wandb.synced")) for folder in folders)


def _agreed(args: argparse.Namespace, question: str) -> bool:
    """Whether a person, asked now or by ``--yes``, wants it. Raises KeyboardInterrupt."""
    if args.yes:
        return True
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        print("nothing was removed: add --yes")
        return False
    try:
        answer = input(f"{question} [y/N] ")
    except KeyboardInterrupt:
        print("\nnothing was removed")
        raise
    except EOFError:
        print()
        answer = ""
    if answer.strip().casefold() in ("y", "yes"):
        return True
    print("nothing was removed")
    return False


def gc(args: argparse.Namespace) -> int:
    """What no run names, shown and then removed from the store."""
    holdings = _holdings(args)
    found = garbage(holdings, args.keep_days)
    if not args.json:
        print(_garbage_text(found, holdings, args.keep_days))
    told = {**_garbage_json(found, holdings), "removed": 0, "removed_bytes": 0, "kept": []}
    nothing = not found.found and not found.half
    if args.json and (nothing or not args.yes):
        say_json(told)
        return 0
    if nothing or not _agreed(args, f"Remove {size(found.size)}?"):
        return 0
    # A person may have thought for long: what is named now counts, of what was shown.
    holdings, shown = _holdings(args), {one.path for one in found.found}
    found = garbage(holdings, args.keep_days)
    found.found = [one for one in found.found if one.path in shown]
    done = collect(holdings, found)
    if args.json:
        say_json(told | {"removed": done.count, "removed_bytes": done.bytes, "kept": done.kept})
    else:
        print(f"removed {_count(done.count, 'folder')}, {size(done.bytes)}")
    for line in done.kept if not args.json else ():
        tell(f"kept: {line}")
    return 1 if done.kept else 0


def _holdings(args: argparse.Namespace) -> Holdings:
    """The store with all runs that are known to use it. Raises InputError where none is."""
    folder, store = roots(args)
    known = used_by(store) if store.is_dir() else []
    if not folder.is_dir() and (args.runs or not known):
        raise InputError(f"--runs {folder}: no such folder. Give the folder of the runs' folders.")
    found = Holdings(store, [folder] if folder.is_dir() else [], args.forget)
    if not known and not found.runs:
        raise InputError(
            f"--runs {folder}: holds no run, and the store {store} does not know of others: what "
            "may be removed cannot be told. Give the folder of the runs that use it."
        )
    return found


def _garbage_json(found: Garbage, holdings: Holdings) -> Json:
    def row(one: Held) -> Json:
        return {"path": str(one.path), "stage": one.stage, "state": _how(one), "bytes": one.size}

    return {
        "store": str(holdings.root),
        "runs": [str(root) for root in holdings.roots],
        "garbage": [row(one) for one in found.found],
        "bytes": found.size,
        "in_use": [str(one.path) for one in found.in_use],
        "young": [str(one.path) for one in found.young],
        "left_alone": [str(path) for path in found.left_alone],
    }


def _how(one: Held) -> str:
    if not one.how:
        return "whole"
    if one.how in (".partial", ".forced"):
        return "unfinished"
    return "set aside" if "damaged" in one.how or "newer" in one.how else "half removed"


def _garbage_text(found: Garbage, holdings: Holdings, days: float) -> str:
    lines = [
        f"{holdings.root}: {_count(found.kept, 'artifact')} that {_count(found.runs, 'run')} in "
        f"{', '.join(map(str, holdings.roots))} stand on stay"
    ]
    groups: dict[tuple[str, str], list[Held]] = {}
    for one in found.found:
        groups.setdefault((one.stage, _how(one)), []).append(one)
    if groups:
        rows = [
            (stage, how, str(len(some)), size(sum(one.size for one in some)))
            for (stage, how), some in groups.items()
        ]
        total = ("in all", "", str(len(found.found)), size(found.size))
        lines += ["no run names:", table(("stage", "", "folders", "size"), [*rows, total], (2, 3))]
    else:
        lines.append("nothing to remove")
    if found.in_use:
        lines.append(f"{_count(len(found.in_use), 'more folder')}: a process works there")
    if found.young:
        lines.append(f"{_count(len(found.young), 'more folder')}: of the last {days:g} days")
    lines += [f"{path}: is a link and is left alone" for path in found.left_alone]
    if found.half:
        lines.append(f"{_count(len(found.half), 'folder')} of runs whose removal was not finished")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def du(args: argparse.Namespace) -> int:
    """What takes the room: by stage, what is no stage's, and the runs that hold most."""
    holdings = _holdings(args)
    named = holdings.named
    groups: dict[str, list[Held]] = {}
    for one in holdings.held:
        groups.setdefault(one.stage, []).append(one)
    stages = [
        {
            "stage": stage,
            "folders": len(some),
            "bytes": sum(one.size for one in some),
            "unnamed_bytes": sum(one.size for one in some if one.key not in named),
        }
        for stage, some in groups.items()
    ]
    others = [
        {"folder": path.name, "bytes": bytes_of(path)}
        for path in sorted(holdings.root.iterdir())
        if path.is_dir() and not path.is_symlink() and path.name not in groups
    ]
    rows = sorted(rows_of(holdings.runs, holdings), key=lambda row: -row.own)
    told = {
        "store": str(holdings.root),
        "stages": sorted(stages, key=lambda row: -int(str(row["bytes"]))),
        "others": [row for row in others if row["bytes"]],
        "runs": [
            {"run": str(row.run.path), "folder": row.folder, "size": row.size, "own": row.own}
            for row in rows
        ],
    }
    if args.json:
        say_json(told)
    else:
        print(_du_text(told, rows[: args.limit]))
    return 0


def _du_text(told: Json, rows: Sequence[Row]) -> str:
    stages, others = told["stages"], told["others"]
    lines = [
        (row["stage"], str(row["folders"]), size(row["bytes"]), size(row["unnamed_bytes"]))
        for row in stages
    ]
    lines += [(row["folder"], "", size(row["bytes"]), "") for row in others]
    total = sum(row["bytes"] for row in (*stages, *others))
    loose = sum(row["unnamed_bytes"] for row in stages)
    count = sum(row["folders"] for row in stages)
    lines.append(("in all", str(count), size(total), size(loose)))
    head = ("stage", "folders", "size", "no run names")
    text = f"store {told['store']}\n{table(head, lines, (1, 2, 3))}"
    if rows:
        runs = [(r.run.path.name, size(r.size), size(r.own), size(r.folder)) for r in rows]
        head = ("run", "stands on", "alone", "folder")
        text += f"\n\nruns that hold most alone\n{table(head, runs, (1, 2, 3), (0,))}"
    return text
