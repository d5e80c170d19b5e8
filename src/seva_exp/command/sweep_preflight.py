"""Bad input in the jobs of a sweep, told once for all that have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seva_exp.command.config import RunConfig
from seva_exp.command.job import Job
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError
from seva_exp.core.spec import digest
from seva_exp.experiment import Experiment, lacking
from seva_exp.experiment.graph import graph, matching


class Faults:
    """Jobs that cannot run; its length is their number."""

    def __init__(self) -> None:
        self._jobs: dict[str, list[Job]] = {}
        self._given: dict[str, str] = {}

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def add(self, job: Job, error: InputError) -> None:
        """One that cannot run."""
        self._jobs.setdefault(str(error), []).append(job)

    def check(self, job: Job) -> None:
        """Look at a job as it will be looked at when it begins; at what it reads from elsewhere
        only if no job before it reads the same."""
        try:
            wanted = job.wanted()
            root = wanted.options.data_root_path()
            key = digest([wanted.experiment.given, str(root)])
            if key not in self._given:
                self._given[key] = _fault(wanted.experiment, root)
            if self._given[key]:
                raise InputError(self._given[key])
            wanted.experiment.check_views()
            if missing := lacking(wanted.experiment, wanted.machine, root):
                raise InputError("\n".join(missing))
            _check_stages(wanted, root)
        except InputError as error:
            self.add(job, error)

    def tell(self, say: Callable[[str], object]) -> None:
        """Each fault, with the first job that has it."""
        for message, jobs in self._jobs.items():
            more = f" and {len(jobs) - 1} more:" if len(jobs) > 1 else ""
            say(f"{jobs[0].told}{more} {message}")


def _check_stages(wanted: RunConfig, root: Path | None) -> None:
    """The names of stages that are given."""
    options, digests = wanted.options, FileDigests(wanted.machine.store_root())
    stages = graph(wanted.experiment, digests, root)
    if options.stop_after:
        matching("stop_after", options.stop_after, stages)
    for name in options.force:
        matching("force", name, stages)


def _fault(experiment: Experiment, root: Path | None) -> str:
    try:
        experiment.check_given(root)
    except InputError as error:
        return str(error)
    return ""
