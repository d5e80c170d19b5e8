"""A second opinion on a finished run: `python -m seva_exp.lmms_eval RUN --tasks pope,mme`.

Merges the run's adapter into its base model, and lets lmms-eval, in an environment of its own,
evaluate both: its data, its prompts, its scoring. Its numbers stand beside ours and in the run's
lmms_eval.json, under the protocol lmms_eval; they are no part of the run's report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import StageError
from seva_exp.core.machine import Machine, resolve_device, resolve_dtype
from seva_exp.core.own_environment import last_line
from seva_exp.core.records import ALIGNED, BASE
from seva_exp.core.runtime import settle
from seva_exp.core.spec import Json
from seva_exp.core.terminal import command, exit_code
from seva_exp.inputs.user_paths import existing_folder
from seva_exp.lmms_eval.environment import HARNESS, Environment
from seva_exp.lmms_eval.results import FILE, HarnessScore, keep, read_results, result_table
from seva_exp.lmms_eval.tasks import check_tasks
from seva_exp.report.console import say, score_table
from seva_exp.runs.listing import run_argument
from seva_exp.runs.reader import FinishedRun
from seva_exp.runs.trained import device_arguments, machine_of, read_trained

HARNESS_SCRIPT = Path(__file__).with_name("harness.py")


def main(words: Sequence[str] | None = None) -> int:
    """The command line. 0: done; 2: bad input; 1: lmms-eval cannot be installed, or stopped."""
    options = _parser().parse_args(words)
    return exit_code(lambda: second_opinion(options))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("lmms_eval", __doc__, laid_out=True)
    run_argument(parser)
    parser.add_argument("--tasks", required=True, help="names of lmms-eval's tasks: pope,mme")
    parser.add_argument("--include-path", help="a folder with tasks of your own (YAML)")
    parser.add_argument("--limit", type=_count, help="ask the first N questions of a task only")
    parser.add_argument("--env", type=Path, help="its environment; else a folder in the store")
    parser.add_argument("--python", default=sys.executable, help="what it is made of")
    device_arguments(parser)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number of at least 1 is needed")
    return number


def second_opinion(options: argparse.Namespace) -> None:
    """Look at everything first, then install, merge, ask. Raises InputError and StageError."""
    settle()
    run = read_trained(options.run)
    include = (
        existing_folder("--include-path", options.include_path) if options.include_path else None
    )
    tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
    check_tasks(tasks, include)
    machine = machine_of(options.device, options.dtype)
    environment = Environment(
        options.env or run.store.root / "environments" / f"lmms-eval-{HARNESS}", options.python
    )
    environment.check()
    run.model().prepare()
    if not environment.ready:
        say(f"installing lmms-eval {HARNESS} into {environment.folder} (once; about 2.5 GB) ...")
        environment.install(run.folder / "lmms_eval.install.log")
    rows = evaluate(run, machine, environment, tasks, include, options.limit)
    show(run, rows)


def evaluate(
    run: FinishedRun,
    machine: Machine,
    environment: Environment,
    tasks: Sequence[str],
    include: Path | None,
    limit: int | None,
) -> list[HarnessScore]:
    """Both models' numbers; each model's are kept in the run's folder as soon as they are there."""
    from seva_exp.runs.merged import merged_checkpoint

    model = run.model()
    folder, note = merged_checkpoint(run, machine)
    if note:
        say(f"note: {note}")
    merged = str(folder)
    device = resolve_device(machine)
    dtype = str(resolve_dtype(machine, device)).removeprefix("torch.")
    if model.quantization:
        say(f"note: this run computed with {model.quantization} weights, here they are {dtype}")
    shared = {
        "processor": merged,
        "dtype": dtype,
        "device": str(device),
        "system_prompt": model.system_prompt,
        "pad_to_square": model.pad_to_square,
        "tasks": list(tasks),
        "include_path": str(include.absolute()) if include else None,
        "limit": limit,
    }
    rows = []
    for which, weights, revision in (
        (BASE, model.location(), model.revision),
        (ALIGNED, merged, "main"),
    ):
        log = run.folder / f"lmms_eval.{which}.log"
        say(f"{which}: lmms-eval {HARNESS} asks {', '.join(tasks)} (log: {log}) ...")
        found = ask(environment, {**shared, "weights": weights, "revision": revision}, log)
        new = read_results(
            found, model=which, limit=limit, dtype=dtype, harness=f"lmms-eval {HARNESS}"
        )
        keep(run.folder, new)
        rows += new
    return rows


def ask(environment: Environment, job: Json, log: Path) -> Json:
    """The harness on one model, in a temporary working directory (some tasks write into it).
    Raises StageError with the last that it said."""
    with TemporaryDirectory() as folder, log.open("w", encoding="utf-8") as file:
        out = Path(folder) / "results.json"
        (Path(folder) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        # -I: neither this project's packages nor its folder (a module lmms_eval) are seen there.
        command = [environment.python, "-I", HARNESS_SCRIPT, "job.json", out.name]
        run = partial(subprocess.run, stdout=file, stderr=file, check=False)
        code = run(command, cwd=folder).returncode
        if code == 0 and out.is_file():
            return json.loads(out.read_text(encoding="utf-8"))
    raise StageError(
        f"lmms-eval stopped (exit code {code}): {last_line(log)} (all of it: {log}). What was "
        f"finished before is in {log.parent / FILE}."
    )


def show(run: FinishedRun, rows: Sequence[HarnessScore]) -> None:
    """Print this package's scores and the harness's, a table each."""
    scores = [score for score in run.report.scores if score.model in (BASE, ALIGNED)]
    if scores:
        say(f"\nthe run's own numbers\n\n{score_table(scores, run.report.final_deltas)}")
    say(f"\nlmms-eval {HARNESS} (lmms_eval; its units, ± standard error)\n{result_table(rows)}")
    say(f"\nkept in {run.folder / FILE}")


if __name__ == "__main__":
    command(main)
