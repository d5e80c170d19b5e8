"""The jobs of a sweep as files in its folder, which every process of every launcher sees:
``jobs/<number>.json`` is what became of a job, ``jobs/<number>.log`` what it said where it had a
process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from seva_exp.command.job import DONE, FAILED, NO_RESULT, Ended, Job, work_or_tell, worst
from seva_exp.core import gpus
from seva_exp.core.files import whole_file
from seva_exp.core.redact import hide, without_secrets
from seva_exp.core.sharing import is_held
from seva_exp.experiment.past import duration

AT_ONCE = "SEVA_EXP_JOBS_AT_ONCE"
"""The environment variable by which a launcher that starts all jobs lets so many of them work."""
SEARCHED = "optimization_results.yaml"
"""What Hydra's Optuna sweeper writes into the sweep's folder: the best parameters."""
POLL = 0.5
"""Seconds between two looks at what other processes did."""
DoesJob = Callable[[Job], Ended]
State = Literal["running", "done", "failed", "left out", "stopped"]


@dataclass(frozen=True)
class Record:
    """One job, its overrides without secrets, and what became of it. ``left out``: another had
    failed, with ``sweep.on_error=stop``. ``stopped``: it was running, and whoever did it is
    dead."""

    number: int
    overrides: tuple[str, ...]
    state: State = "running"
    seconds: float = 0.0
    ended: Ended = field(default_factory=Ended)
    note: str = ""
    """What a person should know while it runs."""

    @property
    def label(self) -> str:
        """For a person: which job."""
        return f"[{' '.join(self.overrides)}]"


class Sweep:
    """The jobs below the sweep's ``folder``. ``say`` tells of them on standard output, ``warn`` on
    standard error. ``jobs``: how many there will be; 0 where that is not known (a search)."""

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], object],
        warn: Callable[[str], object],
        jobs: int = 0,
    ) -> None:
        self.folder = folder.absolute()
        self._many = jobs
        self._began = time.monotonic()
        self._jobs = self.folder / "jobs"
        self._say, self._warn = say, warn
        self._reported: set[int] = set()
        self._noted = False
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None

    def do(
        self, number: int, job: Job, cwd: str | None = None, work: DoesJob | None = None
    ) -> float | None:
        """Do one job: here, by ``work``, or with ``cwd`` in a process of its own, which ends with
        its memory. Returns the objective."""
        self._jobs.mkdir(parents=True, exist_ok=True)
        there = gpus.offered(os.environ) if cwd is not None else []
        count = gpus.wanted(job.values.get("machine") or {})
        leases = gpus.leases() if there else self._jobs
        with self._place(), gpus.take(leases, number, there, count) as taken:
            return self._do(number, job, cwd, taken, work)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of $SEVA_EXP_JOBS_AT_ONCE; where that is not set there is room for all."""
        many = int(os.environ.get(AT_ONCE, 0))
        places = [FileLock(self._jobs / f"place-{i}.lock") for i in range(many)]
        while many and not any(_taken(place) for place in places):
            time.sleep(POLL)
        try:
            yield
        finally:
            for place in places:
                place.release()

    def _do(
        self, number: int, job: Job, cwd: str | None, taken: gpus.Taken, work: DoesJob | None
    ) -> float | None:
        note = taken.note(len(gpus.offered(os.environ)))
        record = Record(number, tuple(hide(word) for word in job.overrides), note=note)
        if job.on_error == "stop" and any(r.state == "failed" for r in self.records()):
            self._write(replace(record, state="left out"))
            return None
        doing = FileLock(self._jobs / f"{number}.lock")
        _taken(doing)
        try:
            return self._locked(record, job, cwd, taken, work)
        finally:
            doing.release()

    def _locked(
        self, record: Record, job: Job, cwd: str | None, taken: gpus.Taken, work: DoesJob | None
    ) -> float | None:
        """Others see by the lock that the job is being done."""
        number = record.number
        self._write(record)
        if cwd is None:
            self._say(f"{self._place_of(record)} {' '.join(record.overrides)}{self._left()}")
        start = time.monotonic()
        ended = self._in_process(number, job, cwd, taken) if cwd else (work or work_or_tell)(job)
        state: State = "done" if ended.code == DONE else "failed"
        seconds = round(time.monotonic() - start, 3)
        record = replace(record, state=state, seconds=seconds, ended=ended)
        if cwd is None:
            self._reported.add(number)
            if state == "failed":
                self._warn(f"{record.label} {ended.message}")
        self._write(record)
        return ended.objective

    def _in_process(self, number: int, job: Job, cwd: str, taken: gpus.Taken) -> Ended:
        result, log = self._jobs / f"{number}.result", self._jobs / f"{number}.log"
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "seva_exp.command.job", str(result)]
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env=taken.environment(os.environ),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            assert child.stdin
            child.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            child.stdin.flush()
            child.wait()
        finally:
            child.kill()
            child.communicate()
        try:
            return Ended(**json.loads(result.read_text(encoding="utf-8")))
        except FileNotFoundError:
            code = child.returncode
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return Ended(FAILED, f"its process died ({how}); what it said: {log}")
        finally:
            result.unlink(missing_ok=True)

    def records(self) -> list[Record]:
        """Every job that was begun or left out, by number."""
        return sorted(self._read(), key=lambda record: record.number)

    def _read(self) -> Iterator[Record]:
        for file in self._jobs.glob("*.json"):
            row = json.loads(file.read_text(encoding="utf-8"))
            row |= {"overrides": tuple(row["overrides"]), "ended": Ended(**row["ended"])}
            record = Record(**row)
            if record.state == "running" and not is_held(file.with_suffix(".lock")):
                now = json.loads(file.read_text(encoding="utf-8"))  # it may just have ended
                state: State = "stopped" if now["state"] == "running" else now["state"]
                record = replace(record, state=state, ended=Ended(**now["ended"]))
            yield record

    def _write(self, record: Record) -> None:
        with whole_file(self._jobs / f"{record.number}.json") as file:
            file.write(json.dumps(asdict(record), indent=1).encode())

    def watch(self) -> None:
        """From now on tell what jobs in other processes come to, at once. What an earlier sweep
        left in this folder (``hydra.sweep.dir=...`` given twice) counts no longer."""
        for old in (*self._jobs.glob("*.json"), *self.folder.glob(SEARCHED)):
            old.unlink()

        def look() -> None:
            while not self._over.wait(POLL):
                self._tell_new()

        self._watcher = threading.Thread(target=look, daemon=True)
        self._watcher.start()

    def _tell_new(self) -> None:
        for record in self.records():
            if record.note and not self._noted:
                self._noted = True
                self._warn(f"{record.label} {record.note}")
            if record.state in ("running", "stopped") or record.number in self._reported:
                continue
            self._reported.add(record.number)
            if record.state == "failed":
                self._warn(f"{record.label} {record.ended.message}")
            elif record.state == "done":
                run = os.path.relpath(record.ended.run)
                place = self._place_of(record)
                self._say(f"{place} {record.seconds:.0f} s  {run}{self._left()}")

    def _place_of(self, record: Record) -> str:
        """Which of how many."""
        return f"[{record.number + 1}/{self._many}]" if self._many else f"job {record.number}:"

    def _left(self) -> str:
        """About how long the jobs take that have not ended, as those did that have."""
        ended = sum(record.state in ("done", "failed") for record in self.records())
        if not (ended and self._many > ended):
            return ""
        took = time.monotonic() - self._began
        return f"  (about {duration(took / ended * (self._many - ended))} left)"

    def conclude(self) -> int:
        """Tell what became of all jobs, failures with their overrides; the exit code."""
        self._over.set()
        if self._watcher:
            self._watcher.join()
        self._tell_new()
        self._redact()
        records = self.records()
        if not records:
            return DONE
        by_state: dict[str, list[Record]] = {}
        for record in records:
            by_state.setdefault(record.state, []).append(record)
        not_ended = by_state.pop("running", []) + by_state.pop("stopped", [])
        counts = [f"{len(some)} {state}" for state, some in by_state.items()]
        counts += [f"{len(not_ended)} not ended"] if not_ended else []
        self._say(f"\nsweep: {', '.join(counts)}   {os.path.relpath(self.folder)}")
        for record in by_state.get("failed", []):
            self._say(f"  failed {record.label} {record.ended.message}")
        for record in not_ended:
            self._say(f"  not ended {record.label}")
        if (best := self.folder / SEARCHED).exists():
            self._say(f"\n{best.read_text(encoding='utf-8')}")
        void = [record for record in records if record.ended.no_result]
        for record in void:
            self._say(f"  no result {record.label} {', '.join(record.ended.no_result)}")
        codes = [NO_RESULT for _ in void] + [record.ended.code for record in records]
        return FAILED if not_ended or FAILED in codes else worst(codes)

    def _redact(self) -> None:
        """Hydra writes down every override, e.g. ``hydra.job.env_set.OPENAI_API_KEY``."""
        import yaml

        file = self.folder / "multirun.yaml"
        if file.exists():
            config = without_secrets(yaml.safe_load(file.read_text(encoding="utf-8")))
            file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    @property
    def runs(self) -> list[Path]:
        """The folders of the runs that are done, in the jobs' order."""
        return [Path(record.ended.run) for record in self.records() if record.state == "done"]


def _taken(place: FileLock) -> bool:
    """Take it, if nobody has it."""
    try:
        place.acquire(timeout=0)
    except Timeout:
        return False
    return True
