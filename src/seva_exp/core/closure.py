"""What code decides a stage's result: all that its class uses, by the imports, as one digest.

The source is read, not run. From a stage's class on, every name in it is followed to the function,
class or constant of this package that it stands for, through imports (those inside functions, too;
none under ``if TYPE_CHECKING``), and on from there. Statements of a module that do something when
it is imported come with whatever is used of it. Classes of ``seva_exp.stages`` are followed member
by member: another stage is an input, which has a closure of its own, so of it only what is read
counts (``self.base.benchmark``). What ``EXCEPT`` names is left out.

What is hashed is the syntax tree, with what each imported name stands for: no comments, docstrings
or layout.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from seva_exp.core.syntax import Module, shape

PACKAGE = "seva_exp"
STAGES = f"{PACKAGE}.stages"
STAGE = (f"{STAGES}.base", "Stage")
EVERY = (f"{PACKAGE}.core.modules", "modules_of")
"""What is called with ``__name__`` to have all modules of a package."""
EXCEPT = {
    "seva_exp.core.errors": "what a person is told of a fault; no result is made of it",
    "seva_exp.core.progress": "bars and lines on a terminal",
    "seva_exp.core.redact": "hides secrets in what is told",
    "seva_exp.core.runtime": "threads and memory of the process: how fast, not what",
    "seva_exp.core.machine": "where and how work is done, by rule no part of a result",
    "seva_exp.core.interfaces": "protocols and records without code of their own",
    "seva_exp.core.spec": "what keys are made with: were it another, every key would be",
    "seva_exp.core.digests": "hashes of files, which stand in the keys",
    "seva_exp.core.store": "how artifacts are locked, written and found, not what is in them",
    "seva_exp.stages.processes": "who does a stage's work; results do not depend on how many",
    "seva_exp.training.throughput": "tokens a second and memory, in a file of their own",
    "seva_exp.stages.base.Stage.key": "the key itself",
    "seva_exp.stages.preferences.Samples.data.image_root": (
        "where pictures lie: load_image stops where one is not the one that was hashed"
    ),
}
"""Modules, members and what is called of a member -> why a change there changes no result."""
WHOLE, ALWAYS = "*", "!"
"""In place of a name: all of a module; what it does when it is imported."""

Unit = tuple[str, str]
"""A module and a name in it; of a class of ``STAGES``: ``Class.member``."""


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
        self._root = root
        self._modules: dict[str, Module] = {}
        self._brought: dict[Unit, Unit | None] = {}
        self._known: dict[Unit, tuple[str, frozenset[Unit]]] = {}

    def digest(self, module: str, stage: str) -> str:
        """16 hex characters for the stage's class. Raises OSError where a file cannot be read."""
        found = self.of(module, stage)
        text = "\n".join(f"{unit}: {self._known[unit][0]}" for unit in sorted(found))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def of(self, module: str, stage: str) -> set[Unit]:
        """All that the stage's class uses."""
        left: list[Unit] = list(self.members((module, stage)))
        found: set[Unit] = set()
        while left:
            unit = left.pop()
            if unit not in found and not _excepted(self.path(unit)):
                found.add(unit)
                left += [*self._read(unit)[1], (unit[0], ALWAYS)]
        return found

    def _read(self, unit: Unit) -> tuple[str, frozenset[Unit]]:
        """What is hashed of a unit, and what it uses."""
        if unit not in self._known:
            reader = Reader(self, unit)
            texts = [shape(node) for node in self.nodes(unit)]
            self._known[unit] = " ".join([*texts, *sorted(reader.bound)]), frozenset(reader.used)
        return self._known[unit]

    def nodes(self, unit: Unit) -> list[ast.stmt]:
        """The statements of a unit; of a class that is read by member its own, without the body."""
        module, name = self.module(unit[0]), unit[1]
        if name == WHOLE:
            return [node for some in module.defined.values() for node in some]
        if name == ALWAYS:
            return module.always
        cls, _, member = name.partition(".")
        if not self.by_member((unit[0], cls)):
            return module.defined[name]
        if not member:
            return [module.head(cls)]
        owner, own = self.owner((unit[0], cls), member)
        return self.module(owner).members(own)[member]

    def path(self, unit: Unit) -> str:
        """Its dotted name; a member's is that of the class that it comes from."""
        cls, _, member = unit[1].partition(".")
        return ".".join((*self.owner((unit[0], cls), member), member) if member else unit)

    def module(self, name: str) -> Module:
        """A module of the package, read once."""
        if name not in self._modules:
            self._modules[name] = Module(name, self.file(name).read_text(encoding="utf-8"))
        return self._modules[name]

    def file(self, name: str) -> Path:
        """Where a module's source lies, if there is such a module."""
        path = self._root.joinpath(*name.split(".")[1:])
        package = path / "__init__.py"
        return package if package.is_file() else path.with_suffix(".py")

    def inside(self, package: str) -> list[str]:
        """The modules that lie in a package."""
        names = sorted(file.stem for file in self.file(package).parent.glob("*.py"))
        return [f"{package}.{name}" for name in names if name != "__init__"]

    def by_member(self, unit: Unit) -> bool:
        """Whether it is a class that is read member by member."""
        inside = f"{unit[0]}.".startswith(f"{STAGES}.")
        return inside and self.module(unit[0]).is_class(unit[1])

    def resolve(self, module: str, name: str) -> Unit | None:
        """What a name in a module stands for: where it is defined; None outside the package."""
        here = self.module(module)
        if name in here.defined:
            return module, name
        return self.imported(here.imports[name]) if name in here.imports else None

    def imported(self, target: Unit) -> Unit | None:
        """What an import brings: ``from MODULE import NAME``, or a module."""
        if target not in self._brought:
            self._brought[target] = self._import(*target)
        return self._brought[target]

    def _import(self, module: str, name: str) -> Unit | None:
        if module.split(".")[0] != PACKAGE:
            return None
        if not name:
            return module, WHOLE
        if self.file(f"{module}.{name}").is_file():
            return f"{module}.{name}", WHOLE
        return self.resolve(module, name) or (module, WHOLE)

    def lineage(self, cls: Unit) -> list[Unit]:
        """A class of ``STAGES`` and its bases there, in the order in which members are found."""
        found = [cls]
        for base in self.module(cls[0]).bases(cls[1]):
            known = self.resolve(cls[0], base)
            if known and self.by_member(known):
                above = self.lineage(known)
                found = [one for one in found if one not in above] + above
        return found

    def is_stage(self, cls: Unit) -> bool:
        """Whether a class is a stage."""
        return STAGE in self.lineage(cls)

    def members(self, cls: Unit) -> Iterator[Unit]:
        """All of a class that is read by member, with what it inherits. What it overrides counts,
        too: ``super()`` may call it."""
        for module, name in self.lineage(cls):
            yield module, name
            for member in self.module(module).members(name):
                own = self.owner(cls, member) == (module, name)
                yield (cls[0], f"{cls[1]}.{member}") if own else (module, f"{name}.{member}")

    def owner(self, cls: Unit, member: str) -> Unit:
        """The class that a member comes from. Raises KeyError where there is none."""
        for module, name in self.lineage(cls):
            if member in self.module(module).members(name):
                return module, name
        raise KeyError(member)


class Reader(ast.NodeVisitor):
    """Reads one unit: ``used`` are the units that it names, ``bound`` what its imported names stand
    for. In ``STAGES`` it knows, of some values, of what class they are: ``self``, annotated
    parameters, and what is reached from them by attributes."""

    def __init__(self, closure: Closure, unit: Unit) -> None:
        self._all = closure
        self._module = unit[0]
        self._types: dict[str, set[Unit]] = {}
        self.used: set[Unit] = set()
        self.bound: set[str] = set()
        cls, dot, _ = unit[1].partition(".")
        if dot:
            self._types["self"] = {(unit[0], cls)}
            # A member stands where it is written: its names are those of its class's module.
            self._module = closure.owner((unit[0], cls), unit[1].partition(".")[2])[0]
        self._here = closure.module(self._module)
        nodes = closure.nodes(unit)
        self._local = self._here.imports_in(nodes)
        typed = f"{self._module}.".startswith(f"{STAGES}.")
        for node in [*nodes, *nodes] if typed else nodes:  # once more: what is a value's class?
            self.visit(node)

    def _use(self, unit: Unit | None, called: bool = True) -> None:
        if unit is None:
            return
        if not self._all.by_member(unit):
            self.used.add(unit)
        elif called and not self._all.is_stage(unit):
            self.used.update(self._all.members(unit))

    def _named(self, name: str) -> Unit | None:
        """What a name stands for here."""
        if name in self._local:
            return self._all.imported(self._local[name])
        if name in self._here.imports and name not in self._here.defined:
            self.bound.add(f"{name}={':'.join(self._here.imports[name])}")
        return self._all.resolve(self._module, name)

    def visit_Name(self, node: ast.Name) -> None:
        self._use(self._named(node.id))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        first = node
        while isinstance(first.value, ast.Attribute):
            first = first.value
        if isinstance(first.value, ast.Name):
            unit = self._named(first.value.id)
            if unit and unit[1] == WHOLE:
                return self._use(self._all.imported((unit[0], first.attr)))
        self._classes(node)
        self.visit(first.value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and self._named(node.func.id) == EVERY:
            self.used.update((module, WHOLE) for module in self._all.inside(self._module))
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        if node.annotation:
            self._types.setdefault(node.arg, set()).update(self._annotation(node.annotation))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        if node.value:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.returns:
            self._annotation(node.returns)
        for part in (*node.decorator_list, node.args, *node.body):
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Known by ``_local``."""

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind(target, node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind(node.target, node.iter)
        self.generic_visit(node)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._types.setdefault(target.id, set()).update(self._classes(value))

    def _annotation(self, node: ast.expr) -> set[Unit]:
        """The classes of ``STAGES`` in an annotation; the others are used."""
        found = set()
        for name in (part.id for part in ast.walk(node) if isinstance(part, ast.Name)):
            unit = self._named(name)
            self._use(unit, called=False)
            if unit and self._all.by_member(unit):
                found.add(unit)
        return found

    def _classes(self, node: ast.expr, then: str = "") -> set[Unit]:
        """Of which classes of ``STAGES`` a value may be. The members on the way are used, but for
        what is excepted where ``then`` is read of them."""
        match node:
            case ast.Name():
                return self._types.get(node.id, set())
            case ast.Attribute():
                owners = self._classes(node.value, node.attr)
                return set().union(*(self._member(cls, node.attr, then) for cls in owners))
            case ast.Call(func=ast.Name(id=name)):
                unit = self._named(name)
                return {unit} if unit and self._all.by_member(unit) else set()
            case ast.Call():
                return self._classes(node.func)
            case ast.Subscript() | ast.Starred():
                return self._classes(node.value)
            case ast.Tuple() | ast.List():
                return set().union(*map(self._classes, node.elts))
            case ast.BoolOp():
                return set().union(*map(self._classes, node.values))
            case ast.IfExp():
                return self._classes(node.body) | self._classes(node.orelse)
        return set()

    def _member(self, cls: Unit, name: str, then: str) -> set[Unit]:
        """The classes of a member of ``cls``, which is used."""
        try:
            owner, _ = self._all.owner(cls, name)
        except KeyError:
            return set()
        unit = (cls[0], f"{cls[1]}.{name}")
        if not _excepted(f"{self._all.path(unit)}.{then}"):
            self.used.add(unit)
        reader = Annotated(self._all, owner)
        return set().union(*(reader.classes(node) for node in self._all.nodes(unit)))


class Annotated:
    """Reads the annotations of members that stand in one module."""

    def __init__(self, closure: Closure, module: str) -> None:
        self._all = closure
        self._module = module

    def classes(self, node: ast.stmt) -> set[Unit]:
        """The classes of ``STAGES`` that a field's or a function's annotation names."""
        said = node.returns if isinstance(node, ast.FunctionDef) else None
        said = node.annotation if isinstance(node, ast.AnnAssign) else said
        names = (part.id for part in ast.walk(said) if isinstance(part, ast.Name)) if said else ()
        units = (self._all.resolve(self._module, name) for name in names)
        return {unit for unit in units if unit and self._all.by_member(unit)}


def _excepted(path: str) -> bool:
    return any(f"{path}.".startswith(f"{one}.") for one in EXCEPT)


def modules_of(units: Iterable[Unit]) -> set[str]:
    """The modules in which units stand."""
    return {module for module, _ in units}
