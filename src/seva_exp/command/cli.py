"""The command line: it composes, overrides, sweeps, launches; what a config means is decided in
``command/config.py``. Hydra is imported here, and for its private API and its errors in
``hydra_private.py``, ``hydra_errors.py`` and ``hydra_plugins.py``; nowhere else.

Exit codes: 0 done; 2 bad config or input; 1 a stage failed; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from hydra.experimental.callback import Callback

from seva_exp.command.forecast import Forecast
from seva_exp.command.hydra_errors import explain
from seva_exp.command.hydra_plugins import offer
from seva_exp.command.hydra_private import (
    grid,
    main_arguments,
    sweep_configs,
    sweeps_a_grid,
)
from seva_exp.command.job import (
    BAD_INPUT,
    DONE,
    FAILED,
    INTERRUPTED,
    Job,
    interrupt,
    work_or_tell,
    worst,
)
from seva_exp.command.sweep import Sweep
from seva_exp.command.sweep_preflight import Faults
from seva_exp.command.words import WITH_VALUE, arguments, tell_at_once
from seva_exp.compare.files import write_comparison
from seva_exp.core import gpus
from seva_exp.core.errors import InputError
from seva_exp.core.interrupts import raise_again
from seva_exp.core.paths import config_dir
from seva_exp.core.printable import tell
from seva_exp.core.redact import hide, variables_in
from seva_exp.core.terminal import settle_streams
from seva_exp.report.console import say
from seva_exp.stages.loaded import LoadedModel
from seva_exp.stages.members import Members, Place, help_out, launched, place_in


class Command:
    """The jobs of the process that was called, at its ``place`` among others of the same command; a
    sweep's may run elsewhere."""

    def __init__(
        self, words: list[str], place: Place | None = None, loaded: LoadedModel | None = None
    ) -> None:
        self.words = words
        self._loaded = loaded
        self._place = place
        self._members: Members | None = None
        self.codes = [DONE]
        self.sweep: Sweep | None = None
        self.forecast: Forecast | None = None
        self.faults = Faults()
        self._scratch: str | None = None
        if _is_dry(words):
            # Nothing is launched, nothing is left behind.
            self._scratch = tempfile.mkdtemp(prefix="seva_exp-")
            kept = [word for word in words if not word.startswith(_OF_A_LAUNCH)]
            self.words = [*kept, "hydra/launcher=basic", f"hydra.sweep.dir={self._scratch}"]

    def begin_sweep(self, folder: Path, jobs: Iterator[Job | None], here: bool) -> None:
        """Before the first of a sweep's ``jobs``. ``here``: they run on this machine."""
        if self._scratch:
            self.forecast = Forecast()
            self._foresee_all(list(jobs))
            return
        if self._place and self._place.rank:
            self._crew(next(jobs, None))
            return
        known = list(jobs)
        self._check([job for job in known if job], here)
        gpus.offer(os.environ)
        self.sweep = Sweep(folder, say, tell, 0 if None in known else len(known))
        self.sweep.watch()

    def _foresee_all(self, jobs: Sequence[Job | None]) -> None:
        """Of a grid all jobs are known, and Hydra need not compose them again. A search's are not,
        and None stands for what Hydra must tell of."""
        known = [job for job in jobs if job is not None]
        if not known or len(known) < len(jobs):
            return
        assert self.forecast
        for job in known:
            self._foresee(job, self.forecast)
        raise SystemExit(DONE)

    def _check(self, jobs: Sequence[Job], here: bool) -> None:
        """Tell what is wrong with any job before the first begins. The others go on without it, if
        there are others and ``sweep.on_error`` lets them."""
        for job in jobs:
            self.faults.check(job, here)
        self.faults.tell(tell)
        if self.faults and (len(self.faults) == len(jobs) or jobs[0].on_error == "stop"):
            raise SystemExit(BAD_INPUT)  # Hydra makes a warning of any other error

    @property
    def started(self) -> bool:
        """Whether any job was started."""
        return len(self.codes) > 1 or bool(self.sweep and self.sweep.records())

    @property
    def in_vain(self) -> bool:
        """Whether every job of a sweep failed, so that a search has no result."""
        records = self.sweep.records() if self.sweep else []
        return bool(records) and all(record.state in ("failed", "left out") for record in records)

    def do(self, job: Job, number: int | None) -> float | None:
        """A job in this process, with its ``number`` in a sweep."""
        if number is not None and self.forecast:
            return self._foresee(job, self.forecast)
        crew = self._crew(job)
        if number is not None and self.sweep:
            work = partial(work_or_tell, crew=crew, loaded=self._loaded)
            return self.sweep.do(number, job, work=work)
        ended = work_or_tell(job, crew, self._loaded)
        self.codes.append(ended.code)
        if ended.message:
            tell(ended.message)
        return ended.objective

    def _crew(self, job: Job | None) -> Members | None:
        """All processes of this command, if there are several, for the first of them; the others
        help it, and end here."""
        try:
            wanted = job.wanted() if job else None
        except InputError:  # told when it is done
            wanted = None
        if self._members or wanted is None:
            return self._members
        try:
            place = place_in(wanted.machine, self._place)
            if place and place.rank:
                if not wanted.options.dry_run:
                    help_out(place, wanted.machine)
                raise SystemExit(DONE)
            if place and not wanted.options.dry_run:
                self._members = Members(place, wanted.machine).open()
        except InputError as error:
            tell(str(error))
            raise SystemExit(BAD_INPUT) from None
        return self._members

    def _foresee(self, job: Job, forecast: Forecast) -> float:
        try:
            forecast.add(job)
        except InputError as error:
            self.faults.add(job, error)
        return 0.0  # a search goes on as if all were equally good

    def conclude(self) -> int:
        """Tell how a sweep ended; the exit code of all jobs."""
        if self._members:
            self._members.close()
        if self.sweep:
            self.codes.append(self.sweep.conclude())
            self._compare(self.sweep)
        if self.forecast:
            if text := self.forecast.text():
                say(text)
            if self.faults:
                self.codes.append(BAD_INPUT)
                self.faults.tell(tell)
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return worst(self.codes)

    def _compare(self, sweep: Sweep) -> None:
        """The runs that are done side by side, in the sweep's folder."""
        page = sweep.folder / "compare.html"
        missing = [
            f"{record.label} {record.ended.message or record.state}"
            for record in sweep.records()
            if record.state != "done"
        ]
        try:
            comparison, _ = write_comparison(sweep.runs, page, missing=missing)
        except InputError as error:  # an artifact was damaged since
            tell(str(error))
            return
        if comparison.runs:
            say(f"comparison: {os.path.relpath(page)}")
        for line in comparison.best:
            say(f"  {line}")
        for line in comparison.findings:
            say(f"  warning: {line}")


_CALLED: Command | None = None
"""Of the process that was called; None in those that a launcher started."""
_OF_A_LAUNCH = ("hydra/launcher=", "hydra.launcher.", "hydra.sweep.dir=", "hydra.sweeper.storage=")


class OnSweep(Callback):
    """Hydra's word that a sweep begins (conf/config.yaml, hydra.callbacks)."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        try:
            if _CALLED:
                self._begin(config, _CALLED)
        except Exception as error:  # Hydra would make a warning of it and go on
            raise SystemExit(_exit_code(error, started=True)) from None

    @staticmethod
    def _begin(config: Any, called: Command) -> None:
        from hydra.core.utils import env_override

        if "optuna" in config.hydra.sweeper._target_ and config.objective is None:
            tell("objective: a search needs a number to judge by: objective=NAME (docs/sweeps.md).")
            raise SystemExit(BAD_INPUT)
        with env_override(config.hydra.job.env_set):  # as around each job
            jobs = composed_jobs(config, called.words)
            here = not re.search("Slurm|Ray", config.hydra.launcher._target_)
            called.begin_sweep(Path(config.hydra.sweep.dir), jobs, here)


def composed_jobs(master: Any, words: list[str]) -> Iterator[Job | None]:
    """All jobs of a sweep of the command ``words``, each as Hydra will compose it; none of a
    search, whose trials are not known yet. What cannot be composed is left to Hydra, which stops
    there: it is the last one, None."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra.utils import get_class
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    settings = master.hydra
    if not sweeps_a_grid(get_class(settings.sweeper._target_)):
        return
    loader = GlobalHydra.instance().config_loader()
    varied = [f"{key}={value}" for key, value in (settings.sweeper.params or {}).items()]
    try:
        parsed = OverridesParser.create(loader).parse_overrides([*varied, *_as_typed(settings)])
        for number, config in enumerate(sweep_configs(loader, master, grid(parsed))):
            with open_dict(config):
                config.hydra.job.num, config.hydra.job.id = number, str(number)
            HydraConfig.instance().set_config(config)  # "${hydra:...}" reads it
            yield as_job(config, config.hydra, words)
    except (HydraException, OmegaConfBaseException):
        yield None


def main(loaded: LoadedModel | None = None) -> NoReturn:
    """Entry point of ``python -m seva_exp`` and ``seva-exp``. The model that is ``loaded`` is kept
    from one job of this process to the next."""
    # Hydra would print a stack trace's remains and exit with 1; its errors are told below.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, interrupt)
    settle_streams()
    import hydra

    offer(sys.argv[1:])
    tell_at_once(sys.argv[1:])
    global _CALLED
    _CALLED = called = Command(arguments(sys.argv[1:]), launched(os.environ), loaded)
    words, cwd = called.words, os.getcwd()
    sys.argv[1:] = words
    start = hydra.main(config_path=str(config_dir()), config_name="config", **main_arguments())
    try:
        raise_again()
        start(lambda config: _job(config, words, cwd))()
        code = DONE
    except BaseException as error:
        reported = isinstance(error, ValueError) and called.in_vain
        code = FAILED if reported else _exit_code(error, called.started)
    ended = called.conclude()
    sys.exit(code if code == INTERRUPTED else worst((code, ended)))


def _is_dry(words: list[str]) -> bool:
    values = [word.partition("=")[2] for word in words if re.match(r"\+{0,2}dry_run=", word)]
    return bool(values) and values[-1].lower() == "true"


def _job(config: Any, words: list[str], cwd: str) -> float | None:
    """One job of the composed config, of the command ``words`` that was called in the folder
    ``cwd``, where it is done whatever ``hydra.job.chdir`` says; its objective. Hydra would keep a
    failed job's error until the whole sweep has run, and add a line: whoever does the job tells."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    settings = HydraConfig.get()
    with contextlib.chdir(cwd):
        try:
            job = as_job(config, settings, words)
        except (HydraException, OmegaConfBaseException) as error:
            if not _CALLED:
                raise
            several = settings.mode is not None and settings.mode.name == "MULTIRUN"
            job_words = f"[{' '.join(map(hide, _as_typed(settings)))}] " if several else ""
            tell(f"{job_words}{explain(error)}")
            _CALLED.codes.append(BAD_INPUT)
            return None
        if _CALLED:
            return _CALLED.do(job, settings.job.num if job.swept is not None else None)
        return Sweep(Path(cwd, settings.sweep.dir), say, tell).do(settings.job.num, job, cwd)


def _as_typed(settings: Any) -> list[str]:
    """A job's overrides, ``${...}`` in them as it is: to look at it may fail."""
    from omegaconf import OmegaConf

    words: Any = OmegaConf.to_container(settings.overrides.task, resolve=False)
    return list(words)


def _words_again(settings: Any) -> list[str]:
    """A job's overrides for whoever repeats it: what the environment gives is not written into
    them, as it may be a secret; other ``${...}`` are."""
    return [
        word if any(variables_in(word)) else settings.overrides.task[place]
        for place, word in enumerate(_as_typed(settings))
    ]


def as_job(config: Any, settings: Any, words: list[str]) -> Job:
    """The job of a composed config with Hydra's ``settings`` for it."""
    from omegaconf import OmegaConf

    overrides = _words_again(settings)
    if settings.job.config_name not in (None, "config"):
        overrides = ["-cn", settings.job.config_name, *overrides]
    unresolved = OmegaConf.to_container(config, resolve=False)
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(values, dict) and isinstance(unresolved, dict)
    for one in (values, unresolved):
        one.pop("hydra", None)
    sweeping = settings.mode is not None and settings.mode.name == "MULTIRUN"
    swept = swept_keys(words, settings) if sweeping else None
    return Job(values, tuple(overrides), swept, tuple(variables_in(unresolved)))


def swept_keys(words: list[str], settings: Any) -> tuple[str, ...]:
    """The fields that a sweep varies: those with several values on the command line, and those of
    its file."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = [
        word
        for before, word in pairwise(["", *words])
        if "=" in word and not word.startswith("-") and before not in WITH_VALUE
    ]
    parsed = OverridesParser.create().parse_overrides(overrides)
    several = {one.get_key_element() for one in parsed if one.is_sweep_override()}
    return tuple(several | set(settings.sweeper.get("params") or {}))


def _exit_code(error: BaseException, started: bool) -> int:
    """Tell an error in one line, without a stack trace where the user can mend it. What Hydra
    raises before a job has ``started`` is about the command line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, KeyboardInterrupt):
        tell("interrupted; what was finished is in the store, the same command resumes from it")
        return INTERRUPTED
    if isinstance(error, HydraException | OmegaConfBaseException):
        tell(explain(error))
        return BAD_INPUT
    if isinstance(error, OSError) and error.filename and not started:
        tell(f"{error.filename}: cannot be written ({error.strerror}). Give another.")
        return BAD_INPUT
    if isinstance(error, ValueError | TypeError) and not started:
        tell(explain(error))
        return BAD_INPUT
    import traceback

    traceback.print_exception(error)
    return FAILED
