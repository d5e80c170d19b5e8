"""What code decides a stage's result: all that its class uses, by the imports, as one digest.

The source is read, not run. From a stage's class on, every name in it is followed to the function,
class or constant of this package that it stands for, through imports (those inside functions, too;
none under ``if TYPE_CHECKING``), and on from there. Statements of a module that do something when
it is imported come with whatever is used of it. Classes of ``seva_exp.stages`` are followed member
by member: another stage is an input, which has a closure of its own, so of it only what is read
counts (``self.base.benchmark``), where annotations or assignments tell of which class a value is
(those that derive from it are meant, too). What ``EXCEPT`` names is left out.

Not followed, since no source tells it: names in texts (``import_module``, ``getattr``), the classes
of what has no annotation (a lambda's parameter), data files (they stand in the keys).

What is hashed is the syntax tree, with what each imported name stands for: no comments, docstrings
or layout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from seva_exp.core.names import Reader
from seva_exp.core.package import ALWAYS, STAGES, Package, Unit
from seva_exp.core.syntax import shape


def code_of(stage: type) -> dict[str, str]:
    """For a manifest: what the results of a stage's class are decided by, and all of the package,
    which is quicker to compare."""
    return {"stage": code_digest(stage), "package": package_digest()}


def is_other(then: object, stage: type) -> bool:
    """Whether an artifact of this stage, with ``then`` in its manifest, was made by other code than
    would make it now. Where that is no ``code_of``, nothing is known, and it is not."""
    if not isinstance(then, dict) or not then.get("stage"):
        return False
    if then.get("package") == package_digest():
        return False
    return code_digest(stage) not in ("", then["stage"])


@cache
def package_digest() -> str:
    """16 hex characters for all source of this package; empty where it came without."""
    folder = Path(__file__).parents[1]
    files = sorted(folder.rglob("*.py"))
    texts = (file.relative_to(folder).as_posix().encode() + file.read_bytes() for file in files)
    return hashlib.sha256(b"\n".join(texts)).hexdigest()[:16] if files else ""


@cache
def code_digest(stage: type) -> str:
    """The digest of the code that decides the results of a stage's class; empty for a class of
    another package, and where the source of this one cannot be read."""
    if not stage.__module__.startswith(f"{STAGES}."):
        return ""
    try:
        return _own().digest(stage.__module__, stage.__name__)
    except (OSError, SyntaxError):
        return ""


@cache
def _own() -> Closure:
    return Closure(Path(__file__).parents[1])


class Closure:
    """The closures of the stages in the package whose source lies in ``root``."""

    def __init__(self, root: Path) -> None:
        self._source = Package(root)
        self._known: dict[Unit, tuple[str, frozenset[Unit]]] = {}

    def digest(self, module: str, stage: str) -> str:
        """16 hex characters for the stage's class. Raises OSError where a file cannot be read."""
        found = self.of(module, stage)
        known = ((unit, self._known[unit][0]) for unit in sorted(found))
        text = "\n".join(f"{unit}: {text_of}" for unit, text_of in known if text_of)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def of(self, module: str, stage: str) -> set[Unit]:
        """All code that the stage's class uses."""
        left: list[Unit] = list(self._source.members((module, stage)))
        found: set[Unit] = set()
        while left:
            unit = left.pop()
            if unit not in found and not self._source.excepted(self._source.path(unit)):
                found.add(unit)
                left += [*self._read(unit)[1], *self._run_before(unit[0])]
        return found

    def _run_before(self, module: str) -> Iterator[Unit]:
        """What importing a module does: its own statements, and its packages'."""
        parts = module.split(".")
        return ((".".join(parts[:n]), ALWAYS) for n in range(1, len(parts) + 1))

    def _read(self, unit: Unit) -> tuple[str, frozenset[Unit]]:
        """What is hashed of a unit, and what it uses."""
        if unit not in self._known:
            reader = Reader(self._source, unit)
            texts = [shape(node) for node in self._source.nodes(unit)]
            self._known[unit] = " ".join([*texts, *sorted(reader.bound)]), frozenset(reader.used)
        return self._known[unit]
