"""The modules of a package, found by looking: a file that is put there is part of it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def modules_of(package: str) -> list[ModuleType]:
    """All modules of a package, imported, by name; packages in it are left out. To be called as
    ``modules_of(__name__)`` in the package itself: so core/closure.py knows of them."""
    found = iter_modules(import_module(package).__path__)
    names = sorted(one.name for one in found if not one.ispkg)
    return [import_module(f"{package}.{name}") for name in names]
