"""What the names in a piece of this package's source stand for (read, not run): see ``closure``."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from seva_exp.core.syntax import UNNAMED, brought

if TYPE_CHECKING:
    from seva_exp.core.closure import Closure

PACKAGE = "seva_exp"
STAGES = f"{PACKAGE}.stages"
WHOLE, ALWAYS = "*", UNNAMED
"""In place of a name: all of a module; what it does when it is imported."""

EVERY = (f"{PACKAGE}.core.modules", "modules_of")
"""What is called with ``__name__`` to have all modules of a package."""

Unit = tuple[str, str]
"""A module and a name in it; of a class of ``STAGES``: ``Class.member``."""


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
        self._within = 0
        if unit[1] == WHOLE:  # what it brings can be taken from it, too
            for target in self._here.imports.values():
                self._use(closure.imported(target), called=False)
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

    def _named(self, name: str) -> list[Unit]:
        """What a name stands for here: one thing, but where functions of a class import it each
        from elsewhere."""
        if name in self._here.imports and name not in self._here.defined:
            self.bound.add(f"{name}={':'.join(self._here.imports[name])}")
        found = [self._all.imported(target) for target in self._local.get(name, ())]
        return [unit for unit in (*found, self._all.resolve(self._module, name)) if unit]

    def visit_Name(self, node: ast.Name) -> None:
        for unit in self._named(node.id):
            self._use(unit)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        first = node
        while isinstance(first.value, ast.Attribute):
            first = first.value
        units = self._named(first.value.id) if isinstance(first.value, ast.Name) else []
        if units and all(unit[1] == WHOLE for unit in units):
            for unit in units:
                self._use(self._all.imported((unit[0], first.attr)))
            return
        self._classes(node)
        self.visit(first.value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and EVERY in self._named(node.func.id):
            self.used.update((module, WHOLE) for module in self._all.inside(self._module))
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        if node.annotation:
            self._types.setdefault(node.arg, set()).update(self._annotation(node.annotation))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        if node.value:
            self._bind(node.target, node.value)
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.returns:
            self._annotation(node.returns)
        self._within += 1
        for part in (*node.decorator_list, node.args, *node.body):
            self.visit(part)
        self._within -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """An import within a function: ``_local`` knows the names it binds; running the module
        counts, too."""
        for unit in filter(None, map(self._all.imported, brought(node).values())):
            if self._within and unit[1] == WHOLE:
                unit = unit[0], ALWAYS
            self._use(unit, called=False)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._bind(node.target, node.value)
        self.generic_visit(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars:
            self._bind(node.optional_vars, node.context_expr)
        self.generic_visit(node)

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
        """Each of several names may be of any class that is among the values."""
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                self._types.setdefault(part.id, set()).update(self._classes(value))

    def _annotation(self, node: ast.expr) -> set[Unit]:
        """The classes of ``STAGES`` in an annotation, and their heirs; the others are used."""
        found = set()
        for name in (part.id for part in ast.walk(node) if isinstance(part, ast.Name)):
            for unit in self._named(name):
                self._use(unit, called=False)
                if self._all.by_member(unit):
                    found |= self._all.heirs(unit)
        return found

    def _classes(self, node: ast.expr, then: str = "") -> set[Unit]:
        """Of which classes of ``STAGES`` a value may be. The members on the way are used, but for
        what is excepted where ``then`` is read of them."""
        match node:
            case ast.Name():
                return self._types.get(node.id) or self._made_by(node.id)
            case ast.Attribute():
                owners = self._classes(node.value, node.attr)
                return set().union(*(self._member(cls, node.attr, then) for cls in owners))
            case ast.Call(func=ast.Name(id=name)):  # else it may return what it is given
                return self._made_by(name) or set().union(*map(self._classes, node.args))
            case ast.Call():
                return self._classes(node.func)
            case ast.Subscript() | ast.Starred() | ast.NamedExpr():
                return self._classes(node.value)
            case ast.Tuple() | ast.List() | ast.Set():
                return set().union(*map(self._classes, node.elts))
            case ast.Dict():
                return set().union(*map(self._classes, node.values))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return self._classes(node.elt)
            case ast.DictComp():
                return self._classes(node.value)
            case ast.BoolOp():
                return set().union(*map(self._classes, node.values))
            case ast.IfExp():
                return self._classes(node.body) | self._classes(node.orelse)
        return set()

    def _made_by(self, name: str) -> set[Unit]:
        """The class of ``STAGES`` of this name; or those that the function of this name returns."""
        found = set()
        for unit in self._named(name):
            if self._all.by_member(unit):
                found.add(unit)
            elif unit[0].startswith(STAGES) and unit[1] not in (WHOLE, ALWAYS):
                reader = Annotated(self._all, unit[0])
                found.update(*(reader.classes(node) for node in self._all.nodes(unit)))
        return found

    def _member(self, cls: Unit, name: str, then: str) -> set[Unit]:
        """The classes of a member of ``cls``, which is used."""
        try:
            owner, _ = self._all.owner(cls, name)
        except KeyError:
            return set()
        unit = (cls[0], f"{cls[1]}.{name}")
        if not self._all.excepted(f"{self._all.path(unit)}.{then}"):
            self.used.add(unit)
        reader = Annotated(self._all, owner)
        return set().union(*(reader.classes(node) for node in self._all.nodes(unit)))


class Annotated:
    """Reads the annotations of members that stand in one module."""

    def __init__(self, closure: Closure, module: str) -> None:
        self._all = closure
        self._module = module

    def classes(self, node: ast.stmt) -> set[Unit]:
        """The classes of ``STAGES`` that a field's or a function's annotation names, and their
        heirs."""
        annotation = node.returns if isinstance(node, ast.FunctionDef) else None
        annotation = node.annotation if isinstance(node, ast.AnnAssign) else annotation
        names = (
            (part.id for part in ast.walk(annotation) if isinstance(part, ast.Name))
            if annotation
            else ()
        )
        units = (self._all.resolve(self._module, name) for name in names)
        known = (unit for unit in units if unit and self._all.by_member(unit))
        return set().union(*map(self._all.heirs, known))
