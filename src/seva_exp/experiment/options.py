"""How far and under what name an experiment is run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from seva_exp.core.spec import Spec
from seva_exp.inputs.user_paths import data_root


class SweepOptions(Spec):
    """How the jobs of a sweep go together."""

    on_error: Literal["stop", "continue"] = "continue"
    """When a job fails: ``continue`` with the others, or ``stop``: begin no more."""


class Options(Spec):
    """How far and under what name to run. Nothing here changes a result."""

    name: str | None = Field(None, pattern=r"^[\w.+=-]+$")
    """Name of the run's folder and W&B run; none makes one from the views."""
    dry_run: bool = False
    """Print the plan and stop."""
    stop_after: str | None = None
    """Run the stage of this name and what it needs, and no more."""
    force: tuple[str, ...] = ()
    """Stages to compute anew, with everything that follows from them."""
    data_root: str | None = None
    """Folder of the benchmarks' official files; none means $SEVA_EXP_DATA. Where files are read is
    no part of a key, their content is."""
    sweep: SweepOptions = SweepOptions()
    """How the jobs of a sweep go together."""
    objective: str | None = None
    """The number that the command returns to a search, such as benchmark/shapes/pope/accuracy/delta
    or negatives/hardness (docs/sweeps.md)."""

    def data_root_path(self) -> Path | None:
        """The folder, from the field or the environment; None where neither is set."""
        return data_root(self.data_root)
