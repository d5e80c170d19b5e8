"""seva_exp: vision-language models that align themselves (SeVa, STIC), as one resumable pipeline.

>>> from seva_exp import Experiment, run
>>> from seva_exp.augment import DiffusionNoise
>>> report = run(Experiment(aug={"diffusion_noise": DiffusionNoise(step=500)}))
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seva_exp.api import run
    from seva_exp.core.errors import InputError, StageError
    from seva_exp.core.machine import Machine
    from seva_exp.core.records import Report
    from seva_exp.experiment import Experiment, Options
    from seva_exp.side_by_side.asker import ask

__version__ = "0.1.0"

_HOMES = {
    "Experiment": "seva_exp.experiment",
    "InputError": "seva_exp.core.errors",
    "Machine": "seva_exp.core.machine",
    "Options": "seva_exp.experiment",
    "Report": "seva_exp.core.records",
    "StageError": "seva_exp.core.errors",
    "ask": "seva_exp.side_by_side.asker",
    "run": "seva_exp.api",
}

MOVED = {
    "seva_exp.reference": "seva_exp.options",
    "seva_exp.sheet": "seva_exp.command.augmentations_sheet",
}
"""Commands of earlier versions, with their names now."""

__all__ = ["Experiment", "InputError", "Machine", "Options", "Report", "StageError", "ask", "run"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that ``import seva_exp`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'seva_exp' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """So that a notebook's completion lists what is loaded when it is first used."""
    return sorted({*globals(), *__all__})


class _Moved:
    """The last of Python's finders: tells where a command is that had another name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """No module. Raises ModuleNotFoundError for a name of ``MOVED``."""
        if name in MOVED:
            raise ModuleNotFoundError(f"it is `python -m {MOVED[name]}` now", name=name)


sys.meta_path.append(_Moved)


def _is_called() -> bool:
    """Whether this is a command's process, which imports its modules now: Python has not put the
    module's path in ``-m``'s place yet."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return sys.argv[:1] == ["-m"] and module.partition(".")[0] == __name__


if _is_called():
    import_module("seva_exp.core.interrupts").end_quietly()
