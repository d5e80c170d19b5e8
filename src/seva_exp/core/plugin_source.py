"""What code of a person's own decides what a class of theirs does, as one digest: such a class has
no version that somebody raises. The source is read, not run.

From the class on, every name is followed to the function, class or constant that it stands for, in
its module and in those modules that lie beside it or in its package; what a module does when it is
imported counts with whatever is used of it. Other packages (numpy, this one) are left out, and so
are names in texts. What is hashed is the syntax tree: no comments, docstrings or layout.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from seva_exp.core.spec import Json
from seva_exp.core.syntax import executed, made, shape

PACKAGE = "seva_exp"
WHOLE, ALWAYS = "*", "!"
"""In place of a name: all of a module; what it does when it is imported."""
Unit = tuple[str, str]


def code_of(cls: type) -> Json:
    """What a key says of a class's code: nothing, if it is one of this package."""
    if cls.__module__.split(".")[0] == PACKAGE:
        return {}
    return {"code": source_digest(cls)}


@cache
def source_digest(cls: type) -> str:
    """16 hex characters for the code of a class. Raises OSError where its source is not there, as
    of one that was typed into a notebook."""
    top = cls.__module__.split(".")[0]
    own = _Own(top)
    units: list[Unit] = [(cls.__module__, cls.__qualname__.split(".")[0])]
    found: dict[Unit, str] = {}
    while units:
        unit = units.pop()
        if unit in found:
            continue
        module = own.module(unit[0])
        nodes = module.nodes(unit[1])
        found[unit] = " ".join([*map(shape, nodes), module.bytes_digest])
        names = unit[0].split(".")
        units += [(".".join(names[: n + 1]), ALWAYS) for n in range(len(names))]
        units += own.used(module, unit[1], nodes)
    text = "\n".join(f"{unit}: {found[unit]}" for unit in sorted(found) if found[unit])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Module:
    """A module's statements by the names that they make; ``bytes_digest`` of one that is no
    source."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.bytes_digest = ""
        self.defined: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, Unit] = {}
        self.stars: list[str] = []
        self.always: list[ast.stmt] = []
        self._package = name if file.stem == "__init__" else name.rpartition(".")[0]
        if file.suffix != ".py":
            self.bytes_digest = hashlib.sha256(file.read_bytes()).hexdigest()
            return
        for node in executed(ast.parse(file.read_text(encoding="utf-8")).body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imports |= self.brought(node)
                self.stars += self._star(node)
                continue
            names = list(made(node))
            plain = isinstance(
                node,
                ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign,
            )
            if not names or not plain or getattr(node, "decorator_list", None):
                self.always.append(node)
            for one in names:
                self.defined.setdefault(one, []).append(node)

    def nodes(self, name: str) -> list[ast.stmt]:
        """The statements of a unit."""
        if name == WHOLE:
            return [node for some in self.defined.values() for node in some]
        return self.always if name == ALWAYS else self.defined.get(name, [])

    def _source(self, node: ast.ImportFrom) -> str:
        """The module that is imported from, by its full name."""
        parts = self._package.split(".")
        above = parts[: len(parts) - node.level + 1] if node.level else []
        return ".".join([*above, *([node.module] if node.module else [])])

    def _star(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        return [self._source(node)] if star and isinstance(node, ast.ImportFrom) else []

    def brought(self, node: ast.Import | ast.ImportFrom) -> dict[str, Unit]:
        """Name -> (module, what of it)."""
        if isinstance(node, ast.ImportFrom):
            source = self._source(node)
            return {one.asname or one.name: (source, one.name) for one in node.names}
        return {one.asname or one.name.split(".")[0]: (one.name, WHOLE) for one in node.names}


class _Own:
    """The modules that are a person's own: of the package ``top``, or beside it."""

    def __init__(self, top: str) -> None:
        self._top = top
        file = _file(top)
        if file is None:
            raise OSError(f"the source of {top} is not there")
        folder = file.parent.parent if file.stem == "__init__" else file.parent
        self._folder = None if _installed(file) else folder
        self._known: dict[str, _Module] = {}

    def module(self, name: str) -> _Module:
        if name not in self._known:
            file = _file(name)
            if file is None:
                raise OSError(f"the source of {name} is not there")
            self._known[name] = _Module(name, file)
        return self._known[name]

    def is_own(self, name: str) -> bool:
        """Whether there is such a module, and it is one of the person's."""
        top = name.split(".")[0]
        if top == PACKAGE or top in sys.stdlib_module_names:
            return False
        file = _file(name)
        if file is None:
            return False
        beside = self._folder and file.is_relative_to(self._folder) and not _installed(file)
        return top == self._top or bool(beside)

    def used(self, module: _Module, name: str, nodes: Iterable[ast.stmt]) -> Iterator[Unit]:
        """The units that statements name."""
        names = {name} | {
            part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)
        }
        targets = [module.imports[one] for one in names if one in module.imports]
        for node in nodes:
            for part in ast.walk(node):
                if isinstance(part, ast.Import | ast.ImportFrom):
                    targets += module.brought(part).values()
        if name == WHOLE:
            targets += module.imports.values()
        yield from ((module.name, one) for one in names if one in module.defined)
        for target in (*targets, *((star, WHOLE) for star in module.stars)):
            yield from self._target(*target)

    def _target(self, source: str, name: str) -> Iterator[Unit]:
        if name not in (WHOLE, "") and self.is_own(f"{source}.{name}"):
            yield f"{source}.{name}", WHOLE
        elif self.is_own(source):
            known = self.module(source)
            there = name in known.defined or name in known.imports
            yield source, name if there else WHOLE


@cache
def _file(module: str) -> Path | None:
    """Where a module's source lies; None: it has none, or there is none of this name."""
    known = sys.modules.get(module)
    origin = getattr(known, "__file__", None)
    if origin is None:
        try:
            spec = find_spec(module)
        except (ImportError, ValueError, AttributeError):
            return None
        origin = spec.origin if spec else None
    file = Path(origin) if origin else None
    return file.resolve() if file and file.is_file() else None


def _installed(file: Path) -> bool:
    """Whether a file belongs to an installed package, or to Python itself."""
    paths = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    own = {"site-packages", "dist-packages"} & set(file.parts)
    library = Path(sysconfig.get_paths()["stdlib"]).resolve()
    return bool(own) or file.is_relative_to(library) or any(file.parent == one for one in paths)
