"""A module's source as a syntax tree: what it defines, what it imports, and its shape as text."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

LAYOUT = ("ctx", "type_comment", "kind")
"""Fields of a syntax tree that follow from the rest, or say nothing that is run."""
Named = dict[str, tuple[str, str]]
"""A name and what an import binds to it: ``from MODULE import NAME``; no NAME for a module."""


class Module:
    """One module. ``defined``: name -> the statements at its top that make it; ``imports``: what
    the others bind; ``always``: those that do something when it is imported, such as
    ``register(...)`` or a definition under a decorator of the package's own. What is run under
    ``if TYPE_CHECKING`` and ``if __name__ == "__main__"`` is not read (their ``else`` is)."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.defined: dict[str, list[ast.stmt]] = {}
        self.imports: Named = {}
        self.always: list[ast.stmt] = []
        self._members: dict[str, dict[str, list[ast.stmt]]] = {}
        self._lines = text.splitlines()
        body = list(executed(ast.parse(text).body))
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imports |= brought(node)
            else:
                self._take(node)
        self.always += [node for node in body if self._registers(node)]

    def _take(self, node: ast.stmt) -> None:
        """A statement under the names that it makes; one that makes none is run for what it
        does."""
        names = list(made(node))
        if not names or not isinstance(node, _PLAIN):
            self.always.append(node)
        for name in names:
            self.defined.setdefault(name, []).append(node)

    def _registers(self, node: ast.stmt) -> bool:
        """Whether a decorator of the package may keep it somewhere, to be found without its
        name."""
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            return False
        parts = [part for d in node.decorator_list for part in ast.walk(d)]
        names = {part.id for part in parts if isinstance(part, ast.Name)}
        own = (module for module, _ in (self.imports.get(n, ("", "")) for n in names))
        return bool(names & set(self.defined)) or any(self.name.split(".")[0] in m for m in own)

    def is_class(self, name: str) -> bool:
        """Whether the name is a class that stands here."""
        return isinstance(self.defined.get(name, [None])[0], ast.ClassDef)

    def _class(self, name: str) -> ast.ClassDef:
        (node,) = self.defined[name]
        assert isinstance(node, ast.ClassDef)
        return node

    def bases(self, name: str) -> list[list[str]]:
        """The names of a class's bases, each by its parts, without what stands in brackets."""
        found = []
        for base in self._class(name).bases:
            plain = base.value if isinstance(base, ast.Subscript) else base
            found.append(ast.unparse(plain).split("."))
        return found

    def head(self, name: str) -> ast.ClassDef:
        """A class without its body."""
        node = self._class(name)
        return ast.ClassDef(name, node.bases, node.keywords, [], node.decorator_list)

    def members(self, name: str) -> dict[str, list[ast.stmt]]:
        """A class's own members, by name."""
        if name not in self._members:
            self._members[name] = _members(self._class(name))
        return self._members[name]

    def _lines_of(self, node: ast.stmt) -> list[str]:
        return self._lines[node.lineno - 1 : node.end_lineno] if hasattr(node, "lineno") else []

    def imports_in(self, nodes: Iterable[ast.stmt]) -> dict[str, set[tuple[str, str]]]:
        """What imports inside of statements bind: of a class, two methods may bind a name each
        in its own way."""
        found: dict[str, set[tuple[str, str]]] = {}
        for node in nodes:
            if not any("import" in line for line in self._lines_of(node)):
                continue  # most have none, and a walk takes its time
            for part in ast.walk(node):
                if isinstance(part, ast.Import | ast.ImportFrom):
                    for name, target in brought(part).items():
                        found.setdefault(name, set()).add(target)
        return found


UNNAMED = "!"
"""In place of a name: what does something and makes no name."""
_PLAIN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def _members(node: ast.ClassDef) -> dict[str, list[ast.stmt]]:
    found: dict[str, list[ast.stmt]] = {}
    for part in node.body:
        if not (_is_text(part) or isinstance(part, ast.Pass)):
            for name in list(made(part)) or [UNNAMED]:
                found.setdefault(name, []).append(part)
    return found


def made(node: ast.stmt) -> Iterator[str]:
    """The names that a statement binds."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Import() | ast.ImportFrom():
            yield from brought(node)
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.For():
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for part in (part for target in targets for part in ast.walk(target)):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    yield part.id
        case ast.If() | ast.Try() | ast.With():
            for part in ast.iter_child_nodes(node):
                if isinstance(part, ast.stmt):
                    yield from made(part)
                elif isinstance(part, ast.ExceptHandler):
                    yield from (name for one in part.body for name in made(one))


def brought(node: ast.Import | ast.ImportFrom) -> Named:
    """What an import binds."""
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute here"
        assert node.names[0].name != "*", "imports name what they take here"
        return {one.asname or one.name: (node.module or "", one.name) for one in node.names}
    return {
        one.asname or one.name.split(".")[0]: (
            one.name if one.asname else one.name.split(".")[0],
            "",
        )
        for one in node.names
    }


def _is_text(node: ast.AST) -> bool:
    """A docstring, or the dots of an empty body."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def executed(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that do something where the module is imported and run."""
    for node in body:
        if isinstance(node, ast.If) and _is_false(node.test):
            yield from executed(node.orelse)
        elif not _is_text(node):
            yield node


def _is_false(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return text in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")


def shape(node: object) -> str:
    """A syntax tree as text, the same from one version of Python to the next: no comments, no
    docstrings, no layout; fields that are empty are left out, as newer versions add some."""
    if isinstance(node, ast.AST):
        fields = [
            f"{name}={shape(value)}"
            for name in node._fields
            if name not in LAYOUT and (value := getattr(node, name, None)) not in (None, [])
        ]
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        kept = [one for one in node if not _is_text(one)]
        return f"[{','.join(map(shape, kept))}]"
    return repr(node)
