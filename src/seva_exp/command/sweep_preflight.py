"""Bad input in the jobs of a sweep, told once for all that have it."""

from __future__ import annotations

from collections.abc import Callable

from seva_exp.command.job import Job
from seva_exp.core.errors import InputError
from seva_exp.experiment.preflight import Preflight


class Faults:
    """Jobs that cannot run; its length is their number."""

    def __init__(self) -> None:
        self._jobs: dict[str, list[Job]] = {}
        self._preflight = Preflight()

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def add(self, job: Job, error: InputError) -> None:
        """Note a job that cannot run."""
        self._jobs.setdefault(str(error), []).append(job)

    def check(self, job: Job, here: bool = True) -> None:
        """Look at a job as it will be looked at when it begins; at what it reads from elsewhere
        only if no job before it reads the same. ``here``: it will run on this machine."""
        try:
            wanted = job.wanted()
            what = (wanted.experiment, wanted.machine, wanted.options)
            self._preflight(*what, here).refuse()
        except InputError as error:
            self.add(job, error)

    def tell(self, say: Callable[[str], object]) -> None:
        """Each fault, with the first job that has it."""
        for message, jobs in self._jobs.items():
            more = f" and {len(jobs) - 1} more:" if len(jobs) > 1 else ""
            say(f"{jobs[0].label}{more} {message}")
