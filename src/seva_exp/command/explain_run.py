"""``python -m seva_exp.explain RUN``: what the words of a finished run's answers rest on.

The run is done again with ``explain``: all but that is read from its store. A new folder beside the
run's, called NAME-explained, holds the whole report, with what was found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from seva_exp.api import run as run_experiment
from seva_exp.command.config import RunConfig, parse
from seva_exp.core.arguments import command_parser
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError
from seva_exp.core.paths import config_dir
from seva_exp.core.spec import Json
from seva_exp.core.terminal import exit_code
from seva_exp.experiment import Experiment, Options
from seva_exp.experiment.plan import plan_run
from seva_exp.runs.listing import run_argument, run_folder
from seva_exp.runs.reader import FinishedRun
from seva_exp.stages.explaining import ExplainWords

ABOUT = """What each word of a finished run's answers rests on (docs/explain.md), without training
anything: all but that is read from the run's store. FIELD=VALUE as in conf/explain/words.yaml, such
as words=5 maps=[occlusion,activation]; dry_run=true tells the plan. The whole report, with what was
found, is a new run beside it: NAME-explained."""
WORDS = "explain/words.yaml"
EXPLAINED = "-explained"
"""Ends the name of a run that explains another."""


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where a stage failed; 2 for bad input; 130 for an interruption."""
    parser = command_parser("explain", ABOUT)
    run_argument(parser)
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    args = parser.parse_args(words)
    return exit_code(lambda: explain(FinishedRun.read(run_folder(args.run)), args.fields))


def explain(run: FinishedRun, fields: Sequence[str]) -> None:
    """Raises InputError where more than that would have to be computed."""
    wanted, options = _wanted(run, fields)
    experiment, machine = wanted.experiment, wanted.machine
    plan, _ = plan_run(experiment, machine, options, (), FileDigests(machine.store_root()))
    lost = [row.name for row in plan.stages if not row.cached and row.kind != ExplainWords.name]
    if lost:
        raise InputError(
            f"{run.folder}: {', '.join(lost)} would be computed anew: the store "
            f"({machine.store_root()}) does not hold it, or this version of seva_exp computes it "
            f"otherwise. {run.again}"
        )
    run_experiment(experiment, machine, options, overrides=_command(run, fields))


def _command(run: FinishedRun, fields: Sequence[str]) -> list[str]:
    """The words that do the same as a run; none where the run itself had none (a Python API's)."""
    replaced = re.compile(r"\+*(explain|dry_run|name)\b")
    own = [word for word in run.command[3:] if not replaced.match(word)]
    added = [word if word.startswith("dry_run=") else f"explain.{word}" for word in fields]
    return [*own, "explain=words", *added, f"name={_name(run)}"] if run.command else []


def _name(run: FinishedRun) -> str:
    """Another than the run's own, by which both can be told apart; that of a run that explains
    already stays."""
    name = re.sub(r"[^\w.+=-]", "-", run.report.name)
    return name if name.endswith(EXPLAINED) else name + EXPLAINED


def _wanted(run: FinishedRun, fields: Sequence[str]) -> tuple[RunConfig, Options]:
    """The run's config with what ``fields`` say. Raises InputError."""
    names = {*Experiment.model_fields, *Options.model_fields, "machine"} - {"left_out"}
    config = {name: value for name, value in run.config.items() if name in names}
    node = _defaults()
    said: Json = {}
    for word in fields:
        field, is_one, text = word.partition("=")
        if not is_one:
            raise InputError(f"{word}: FIELD=VALUE is needed, such as words=5.")
        (said if field == "dry_run" else node)[field] = _value(word, text)
    options: Json = {"stop_after": None, "force": [], "objective": None, "dry_run": False} | said
    options["name"] = _name(run)
    wanted = parse(config | options | {"explain": node, "tracker": {"kind": "none"}})
    return wanted, wanted.options


def _defaults() -> Json:
    """Those of ``conf/explain/words.yaml``."""
    import yaml

    def read(name: str) -> Any:
        return yaml.safe_load((config_dir() / name).read_text(encoding="utf-8"))

    found: Json = read(WORDS)
    for one in found.pop("defaults"):
        for place, file in one.items():
            group, _, field = place.lstrip("/").partition("@")
            found[field] = read(f"{group}/{file}.yaml")
    return found


def _value(word: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{word}: its value cannot be read.") from None
