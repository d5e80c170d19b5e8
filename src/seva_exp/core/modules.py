"""The modules of a package, found by looking: a file that is put there is part of it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

T = TypeVar("T")


def classes_of(package: str, base: type[T]) -> list[type[T]]:
    """The classes that derive from ``base`` and stand in a module of the package, by the modules'
    names; packages in it are left out. To be called as ``classes_of(__name__, ...)`` in the package
    itself: so core/closure.py knows of its modules."""
    found = iter_modules(import_module(package).__path__)
    modules = [import_module(f"{package}.{one.name}") for one in found if not one.ispkg]
    return [
        cls
        for module in sorted(modules, key=lambda module: module.__name__)
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, base) and cls.__module__ == module.__name__
    ]


def by_name(found: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Name -> value. Raises ValueError where two have the same name: else the later of two files
    would take the place of the other in silence."""
    named: dict[str, T] = {}
    for name, value in found:
        if name in named:
            raise ValueError(f"{name}: named by {named[name]} and by {value}")
        named[name] = value
    return named
