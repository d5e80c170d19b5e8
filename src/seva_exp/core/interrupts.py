"""Ctrl-C before a command has begun: while its modules are imported it ends the process at once, as
it does in other languages, instead of printing where in them Python was."""

from __future__ import annotations

import signal


def end_quietly() -> None:
    """From now on Ctrl-C ends this process without a word, unless something else is set up for it
    (``nohup`` has it ignored)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """From now on it is KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
