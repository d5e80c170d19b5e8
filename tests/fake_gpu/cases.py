"""What the tests let run under a fake GPU, each in a process of its own (server.py)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from .honest import HonestDevice
from .watch import Watch

Json = dict[str, Any]


def command(words: list[str], device: str, mistake: str = "") -> Json:
    """``python -m seva_exp WORDS`` on the ``cpu``, or on an honest ``cuda`` device, with a planted
    ``mistake`` (a function of mistakes.py): its exit code, and what Watch saw."""
    from . import mistakes

    if mistake:
        getattr(mistakes, mistake)()
    if device == "cpu":
        return {"code": _called([*words, "machine.device=cpu"])}
    with HonestDevice() as gpu, Watch(gpu.ledger).watching() as watch:
        code = _called([*words, "machine.device=cuda"])
    return {"code": code, **watch.told()}


def _called(words: list[str]) -> int:
    """The command line's exit code."""
    from seva_exp.cli import main

    sys.argv = ["seva_exp", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
