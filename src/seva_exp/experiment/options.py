"""How far and under what name an experiment is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

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
    plugins: tuple[str, ...] = ()
    """Modules with augmentations, scores, losses and benchmarks of your own: names that Python can
    import, or paths that end in .py (docs/plugins.md). The code of what is used is in the keys."""
    sweep: SweepOptions = SweepOptions()
    """How the jobs of a sweep go together."""
    objective: str | None = None
    """The number that the command returns to a search, such as benchmark/shapes/pope/accuracy/delta
    or negatives/hardness (docs/sweeps.md)."""

    @field_validator("plugins", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One name is a list of one; a path holds wherever the run's config is read."""
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return names
        return tuple(
            os.path.abspath(os.path.expanduser(one))
            if isinstance(one, str) and one.endswith(".py")
            else one
            for one in names
        )

    def data_root_path(self) -> Path | None:
        """The folder, from the field or the environment; None where neither is set."""
        return data_root(self.data_root)
