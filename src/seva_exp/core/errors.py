"""Errors that a person reads. Each names the field or file, the bad value and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from seva_exp.core.synonyms import ours


class InputError(ValueError):
    """Configuration or input data is wrong. Raised before work starts; the CLI exits with 2."""


class StageError(RuntimeError):
    """A stage could not finish. What earlier stages made stays; the CLI exits with 1."""


class UnusableText(StageError):
    """A text that the model cannot be trained on or asked; ``reason`` is a word to count by."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class ChangedFile(StageError):
    """The file ``path`` is no longer what it was when it was hashed."""

    def __init__(self, text: str, path: Path = Path()) -> None:
        super().__init__(text)
        self.path = path


_NO_MEMORY = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, in Python or in torch, which is not imported: an
    error of its own on a GPU, known by its class's name; a plain one on a CPU, by its words."""
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return isinstance(error, MemoryError) or named or any(w in str(error) for w in _NO_MEMORY)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``word``, or None when nothing is close."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def suggest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` plus all the known names, the nearest first, for the end of an error
    message (``printable.tell`` puts many into columns). A word of other tools finds ours."""
    names = sorted(known)
    near = [*ours(word, set(names)), *get_close_matches(word, names, n=3, cutoff=0.5)]
    hint = f" Did you mean '{near[0]}'?" if near else ""
    ordered = dict.fromkeys([*near, *names])
    return f"{hint} Known: {', '.join(ordered)}." if names else hint
