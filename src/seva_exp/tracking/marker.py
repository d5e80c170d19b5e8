"""What was already sent to a tracked run, so that a resumed run sends the rest, nothing twice."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from seva_exp.core.files import write_whole
from seva_exp.core.spec import Json
from seva_exp.runs.events import Plan


class Marker:
    """A record of what was already sent to one tracked run: ``<store>/tracking/<tracker>/<run
    id>.json``.

    It is what makes a resumed run log each training step once, although offline runs can't ask a
    server what it holds."""

    def __init__(self, path: Path, target: Json) -> None:
        """Read ``path``. A marker of another target, or a broken one, counts as none."""
        self.path = path
        self._target = target
        self._lock = FileLock(path.with_suffix(".lock"))
        self._read()

    def claim(self) -> bool:
        """Whether this process alone tracks the run from now on, until ``release``. What another
        has sent meanwhile counts as sent."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except (OSError, NotImplementedError):  # a file system without locks
            return True
        self._read()
        return True

    def release(self) -> None:
        """Another process may track the run."""
        self._lock.release()

    def _read(self) -> None:
        self.state: Json = {**self._target, "finished": False, "dirs": []}
        self.forget()
        with suppress(OSError, ValueError):
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(stored, dict) and all(
                stored.get(k) == v for k, v in self._target.items()
            ):
                self.state.update(stored)

    def forget(self) -> None:
        """Nothing was sent."""
        self.state.update(next_step=0, stages={}, skipped={}, history={})

    def is_complete(self, plan: Plan) -> bool:
        """Whether nothing of ``plan`` is left to compute or to log."""
        stages, skipped = self.state["stages"], self.state["skipped"]
        return self.state["finished"] and all(
            not stage.forced
            and (
                (stage.cached and stages.get(stage.name) == stage.key)
                or skipped.get(stage.name) == stage.key  # it is never made, so never cached
            )
            for stage in plan.stages
        )

    @property
    def here(self) -> list[str]:
        """The run's folders or files that are still there."""
        return [place for place in self.state["dirs"] if Path(place).exists()]

    @property
    def location(self) -> str:
        """For a person: where the run is."""
        gone = f"its files are gone; delete {self.path} to log it again"
        return self.state.get("url") or ", ".join(self.here) or gone

    def forget_lost(self) -> None:
        """Start over when an unfinished run's files were all deleted."""
        if not self.state["finished"] and self.state["dirs"] and not self.here:
            self.state["dirs"] = []
            self.forget()

    def last_step(self, stage: str, key: str) -> int:
        """The last step of this stage's history that was logged; -1 for none."""
        entry = self.state["history"].get(stage, {})
        return entry.get("step", -1) if entry.get("key") == key else -1

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.state, indent=1, sort_keys=True)
        write_whole(self.path, text, shared=True)
