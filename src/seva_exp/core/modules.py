"""The modules of a package, found by looking: a file that is put there is part of it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules_of(package: str) -> list[ModuleType]:
    """All modules of a package, imported, by name; packages in it are left out. To be called as
    ``modules_of(__name__)`` in the package itself: so core/closure.py knows of them."""
    found = iter_modules(import_module(package).__path__)
    names = sorted(one.name for one in found if not one.ispkg)
    return [import_module(f"{package}.{name}") for name in names]


def classes_in(modules: Iterable[ModuleType], base: type[T]) -> list[type[T]]:
    """The classes that derive from ``base`` and are written in these modules, in their order; those
    that a module only imports are left out."""
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base)
        if value.__module__ == module.__name__
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
