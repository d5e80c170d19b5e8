"""A command's standard output and error: whatever is written there (by us, a library, a traceback)
is ``printable``, and neither a reader that has gone (``| head``) nor a full disk ends anything."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from seva_exp.core.errors import InputError, StageError
from seva_exp.core.interrupts import raise_again
from seva_exp.core.printable import printable, tell
from seva_exp.core.redact import without_values

RESUMES = "Interrupted. What was finished is kept: the same command resumes from there."


class Terminal:
    """A text stream of which everything but ``write`` and ``flush`` is as it was."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write it printably; how many characters it had."""
        return self.write_as_it_is(printable(without_values(text)), len(text))

    def writelines(self, lines: Any) -> None:
        """Each as ``write`` does."""
        for line in lines:
            self.write(line)

    def write_as_it_is(self, text: str, length: int | None = None) -> int:
        """For what we write to steer the terminal: colours, a progress bar."""
        try:
            self.stream.write(text)
        except OSError as error:
            self._leave(error)
        return len(text) if length is None else length

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            self.stream.flush()
        except OSError as error:
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        """From now on it goes nowhere, also what the interpreter flushes at its end."""
        if not isinstance(error, BrokenPipeError) and self is not sys.stderr:
            text = f"seva_exp: {self.stream.name}: {error.strerror}; what follows is not written"
            print(text, file=sys.stderr, flush=True)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


class Raw:
    """A stream's own view of itself where it is a ``Terminal``: writes are not changed."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.write = terminal.write_as_it_is

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


def raw(stream: Any) -> Any:
    """The stream as one writes colours or a progress bar to."""
    return Raw(stream) if isinstance(stream, Terminal) else stream


def settle_streams() -> None:
    """Make this process's standard output and error such streams. What an encoding lacks is written
    as its escape: a narrow one must not end a run."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Terminal(stream))


def exit_code(
    work: Callable[[], int | None], interrupted: str | Callable[[], str] = RESUMES
) -> int:
    """Do a command's ``work``: its code, or 0; 2 for bad input and 1 for a stage or a library that
    failed, each told in its own words; 130 for an interruption, told as ``interrupted`` (where that
    is no empty text)."""
    try:
        return work() or 0
    except (InputError, StageError) as error:
        tell(str(error))
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        if text := interrupted if isinstance(interrupted, str) else interrupted():
            tell(text)
        return 130


def command(main: Callable[[], int]) -> NoReturn:
    """Run a command's ``main`` as the process that was called; what it does not tell itself ends it
    as ``exit_code`` does."""
    settle_streams()
    raise_again()
    code = exit_code(main, "")
    if sys.stdout:
        sys.stdout.flush()
    sys.exit(code)
