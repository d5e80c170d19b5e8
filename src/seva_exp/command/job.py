"""One job: a composed config that is run. In a process of its own it is
``python -m seva_exp.command.job RESULT``, with the job as a line of JSON on standard input, and
ends when that input does."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

from seva_exp.api import run
from seva_exp.command.config import RunConfig, parse
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.files import write_whole
from seva_exp.core.interrupts import raise_again
from seva_exp.core.printable import error_text, tell
from seva_exp.core.redact import hide, secret_in, without_values
from seva_exp.core.runtime import end_with_parent
from seva_exp.core.spec import Json
from seva_exp.core.terminal import settle_streams
from seva_exp.experiment.objective import check_objective, value_of
from seva_exp.report.console import say
from seva_exp.runs.reader import FinishedRun
from seva_exp.stages.base import Crew
from seva_exp.stages.loaded import LoadedModel
from seva_exp.tracking import in_sweep

DONE, FAILED, BAD_INPUT, NO_RESULT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes. ``NO_RESULT``: a sweep is done, and a run of it has a result that is none."""


def worst(codes: Iterable[int]) -> int:
    """The exit code of all: a result that is none weighs less than any failure."""
    return max(codes, key=lambda code: 0.5 if code == NO_RESULT else code)


@dataclass(frozen=True)
class Job:
    """``values`` is the composed config, ``overrides`` the words that repeat it; ``swept`` are the
    fields that tell the runs of a sweep apart, None for a run alone; ``variables`` tells which
    fields are read from which environment variables."""

    values: Json
    overrides: tuple[str, ...]
    swept: tuple[str, ...] | None = None
    variables: tuple[tuple[str, str], ...] = ()

    def wanted(self) -> RunConfig:
        """The config as objects. Raises InputError."""
        if why := secret_in(self.values, os.environ, self.variables):
            raise InputError(why)
        found = parse(self.values)
        aim, stop_after = found.options.objective, found.options.stop_after
        if aim:
            check_objective(aim, found.experiment, stop_after)
        if self.swept is None:
            return found
        found = replace(found, tracker=in_sweep(found.tracker, sweep_title(self)))
        if found.options.name is not None:
            return found
        name = sweep_name(found.experiment.title, self.overrides, self.swept)
        return replace(found, options=found.options.model_copy(update={"name": name}))

    @property
    def on_error(self) -> str:
        """``sweep.on_error`` as it was given, before anything is checked."""
        return str((self.values.get("sweep") or {}).get("on_error"))

    @property
    def label(self) -> str:
        """The words in brackets, before what is said of this job."""
        return f"[{' '.join(hide(word) for word in self.overrides)}]"


@dataclass(frozen=True)
class Ended:
    """A job's result: exit code, message, the run's folder, the objective's value, the stages
    whose result is none."""

    code: int = DONE
    message: str = ""
    run: str = ""
    objective: float | None = None
    no_result: tuple[str, ...] = ()


def work(job: Job, crew: Crew | None = None, loaded: LoadedModel | None = None) -> Ended:
    """Run it here, with a crew if there is one, and the model that is ``loaded``. What a person can
    mend becomes a message; other errors propagate."""
    try:
        wanted = job.wanted()
        aim = wanted.options.objective
        report = run(
            wanted.experiment,
            wanted.machine,
            wanted.options,
            tracker=wanted.tracker,
            overrides=job.overrides,
            crew=crew,
            loaded=loaded,
        )
        value = None
        if aim and report.dir:  # a dry run has none
            value = value_of(aim, FinishedRun.read(Path(report.dir)))
            say(f"objective {aim}: {value:.6g}")
    except InputError as error:
        return Ended(BAD_INPUT, without_values(str(error)))
    except StageError as error:
        return Ended(FAILED, without_values(str(error)))
    void = tuple(one.stage for one in report.findings if one.no_result)
    return Ended(run=report.dir, objective=value, no_result=void)


def work_or_tell(job: Job, crew: Crew | None = None, loaded: LoadedModel | None = None) -> Ended:
    """``work``, of which an unexpected error (one of ours, outside the stages) ends this job only:
    it is traced on standard error."""
    try:
        return work(job, crew, loaded)
    except Exception as error:
        traceback.print_exception(error)
        return Ended(FAILED, without_values(error_text(error, kind=True)))


def sweep_title(job: Job) -> str:
    """What a sweep's runs have in common, whenever they are made: the name of its file, or the
    fields that it varies, e.g. ``dpo.beta, seed``."""
    if job.overrides[:1] == ("-cn",):
        return job.overrides[1]
    return ", ".join(sorted(key.lstrip("+") for key in job.swept or ()))


def varying(overrides: Sequence[str], swept: Collection[str]) -> list[str]:
    """The words that tell one run of a sweep from another, with short keys: ``step=300``."""
    pairs = (override.partition("=")[::2] for override in overrides)
    return [f"{re.split(r'[./]', key)[-1]}={value}" for key, value in pairs if key in swept]


def sweep_name(title: str, overrides: Sequence[str], swept: Collection[str]) -> str:
    """A run's title (which has the views) and what else varies, e.g.
    ``diffusion_noise_step=300_beta=0.1``."""
    words = [title, *(word for word in varying(overrides, swept) if not word.startswith("+"))]
    return re.sub(r"[^\w.+=-]+", "-", "_".join(words), flags=re.ASCII)[:100]


def main(result: Path) -> int:
    """Do the job that standard input tells; what became of it goes into the file ``result``."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # a scheduler's words for the process that waits
    signal.signal(signal.SIGTERM, interrupt)
    settle_streams()
    raise_again()
    row = json.loads(_first_line())
    end_with_parent(INTERRUPTED)
    variables = tuple((field, name) for field, name in row["variables"])
    words, swept = tuple(row["overrides"]), tuple(row["swept"])
    ended = work_or_tell(Job(row["values"], words, swept, variables))
    if ended.message:
        tell(ended.message)
    write_whole(result, json.dumps(asdict(ended)))
    return ended.code


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM (a scheduler's time limit) ends a run as Ctrl-C does: the store stays usable."""
    raise KeyboardInterrupt


def _first_line() -> bytes:
    """Byte by byte from the descriptor: a buffer's lock would be held at the end."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
