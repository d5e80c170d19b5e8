"""``python -m seva_exp.ask``: the user's command; the work is in ``side_by_side/``. Beside it
``seva_exp.ask(...)`` is the same from Python, so this module can be called, too."""

import sys
from types import ModuleType
from typing import Any

from seva_exp.core.terminal import command
from seva_exp.side_by_side.asker import ask
from seva_exp.side_by_side.command import main


class _Callable(ModuleType):
    """The import of this module puts it where ``seva_exp.ask`` is looked up."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return ask(*args, **options)


if __name__ == "__main__":
    command(main)
sys.modules[__name__].__class__ = _Callable
