"""A person's own augmentations, scores, losses and benchmarks: classes in modules of theirs, which
are named in ``plugins=[...]`` or are installed with an entry point, and take their places beside
ours. See docs/plugins.md. No heavy import."""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from seva_exp.augment import AUGMENTATIONS, SOURCES, Augmentation, Source
from seva_exp.benchmarks import BENCHMARKS, OFFICIAL
from seva_exp.benchmarks.base import Benchmark
from seva_exp.benchmarks.official import Official
from seva_exp.core.errors import InputError, nearest
from seva_exp.core.paths import ADDED
from seva_exp.core.plugin_source import source_digest
from seva_exp.core.printable import error_text
from seva_exp.core.spec import Json, Spec, renew
from seva_exp.inputs.user_paths import existing_file
from seva_exp.scores import SCORES
from seva_exp.scores.base import CandidateScore
from seva_exp.training.loss import Loss
from seva_exp.training.losses import OURS

ENTRY_POINTS = "seva_exp.plugins"
"""The group of entry points of installed packages that bring such classes."""
VARIABLE = "SEVA_EXP_PLUGINS"
"""The environment variable that names modules, with commas between them, for every command."""


@dataclass(frozen=True)
class Group:
    """A group of the config: what its classes derive from, those that are known, and where the
    config of one stands (``{}``: its kind)."""

    name: str
    base: type[Spec]
    known: dict[str, Any]
    package: str


GROUPS = (
    Group("aug", Source, SOURCES, "aug.{}"),
    Group("score", CandidateScore, SCORES, "method.scores.{}"),
    Group("benchmark", Benchmark, BENCHMARKS, "benchmark.{}"),
)
_LOADED: dict[str, ModuleType] = {}
"""By the name that was given."""
_INSTALLED: set[str] = set()
"""Modules that entry points named."""
_ADDED: dict[tuple[str, str], type] = {}
"""(group, kind) -> class, in the order in which they came; losses are the group ``loss``."""


def load(names: Sequence[str]) -> None:
    """Import the modules (a name, or a path that ends in .py) and register their classes; those
    that are loaded are not looked at again. Raises InputError."""
    for name in names:
        if name not in _LOADED:
            module = _module(name, f"plugins={name}")
            _take(module, f"plugins={name}")
            _LOADED[name] = module


def load_installed() -> None:
    """The same for the modules of installed packages that name them (``seva_exp.plugins``), and for
    those of the environment variable."""
    load([name for name in os.environ.get(VARIABLE, "").split(",") if name.strip()])
    for point in entry_points(group=ENTRY_POINTS):
        if point.value not in _INSTALLED:
            where = f"plugin {point.name} of {point.dist.name if point.dist else 'a package'}"
            module = _imported(point.module, where)
            _take(module, where)
            _INSTALLED.add(point.value)


def loaded() -> tuple[str, ...]:
    """The names of what is loaded, for a process that is to load the same."""
    return tuple(_LOADED)


def register(*classes: type) -> None:
    """Classes of modules that were imported already, for ``seva_exp.run``. Raises InputError."""
    for cls in classes:
        module = sys.modules[cls.__module__]
        _take(module, "seva_exp.plugins.register", [cls])
        if cls.__module__ != "__main__":  # other processes import it themselves
            _LOADED[cls.__module__] = module


def configs() -> Iterator[tuple[str, str, str, Json]]:
    """(group, name, package, values) of the config of each class that was added, with its
    defaults: what a YAML file in ``conf/`` is for ours."""
    for group in GROUPS:
        for (name, kind), cls in _ADDED.items():
            if name == group.name:
                values = cls().to_json()  # a spec
                if "protocol" in values:
                    values["protocol"] = None  # that of all benchmarks
                yield group.name, kind, group.package.format(kind), values


def _module(name: str, where: str) -> ModuleType:
    """The module of this name, or of the file."""
    if name.endswith(".py") or os.sep in name:
        return _of_file(existing_file("plugins", name).resolve(), where)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise InputError(f"{where}: a module's name is needed, or a path that ends in .py.")
    try:
        there = find_spec(name) is not None
    except ModuleNotFoundError:
        there = False
    except Exception as error:  # of the package that it lies in
        raise InputError(f"{where}: {_told(error)}") from error
    if not there:
        beside = [file.stem for file in Path().glob("*.py")]
        match = nearest(name, beside)
        hint = f" Did you mean '{match}'?" if match else ""
        raise InputError(
            f"{where}: there is no module {name!r} in {os.getcwd()} or on PYTHONPATH.{hint} A "
            "path that ends in .py is understood, too."
        )
    return _imported(name, where)


def _of_file(file: Path, where: str) -> ModuleType:
    name = file.stem
    if not name.isidentifier():
        raise InputError(f"{where}: {file.name!r} is no name of a module: letters, digits and '_'.")
    known = sys.modules.get(name)
    if known is not None or name in sys.stdlib_module_names:
        if known is not None and _file_of(known) == file:
            return known
        other = getattr(known, "__file__", None) or "Python's own"
        raise InputError(f"{where}: a module {name!r} is there already ({other}). Rename the file.")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    spec = spec_from_file_location(name, file)
    assert spec and spec.loader
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{where}: {_told(error)}") from error
    return module


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _imported(name: str, where: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        raise InputError(f"{where}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """What went wrong while a module was imported, with the line of it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error_text(error, kind=True)}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not _of_a_library(one.filename)]
    place = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
    return f"{place}{error_text(error, kind=True)}"


def _of_a_library(file: str) -> bool:
    """Whether a line of a traceback is none of the person's."""
    parts = Path(file).parts
    own = str(Path(__file__).parent)
    library = os.path.dirname(os.__file__)
    return file.startswith(("<", own, library)) or "site-packages" in parts


def _take(module: ModuleType, where: str, given: Sequence[type] | None = None) -> None:
    """Register all of a module's classes, or none."""
    top = module.__name__.split(".")[0]
    classes = given or [
        one
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__.split(".")[0] == top
    ]
    found = [(group, name, cls) for cls in classes for group, name in _places(cls)]
    if not found:
        raise InputError(
            f"{where}: {module.__name__} has no class that derives from an augmentation, a score, "
            "a benchmark (each with a kind) or a loss (with a name): docs/plugins.md."
        )
    new: dict[tuple[str, str], type] = {}
    for group, name, cls in found:
        if fault := _fault(group, name, cls, new):
            raise InputError(f"{where}: {cls.__module__}.{cls.__qualname__}: {fault}")
        new[group, name] = cls
    fresh = {key: cls for key, cls in new.items() if _ADDED.get(key) is not cls}
    for (group, name), cls in fresh.items():
        _add(group, name, cls)
    if fresh:
        renew()


def _places(cls: type) -> Iterator[tuple[str, str]]:
    """(group, name) of a class that is no base."""
    if issubclass(cls, Loss) and (not inspect.isabstract(cls) or "name" in vars(cls)):
        yield "loss", str(getattr(cls, "name", ""))
    for group in GROUPS:
        if issubclass(cls, group.base):
            kind = cls.model_fields["kind"].default if "kind" in cls.model_fields else None
            if isinstance(kind, str):
                yield group.name, kind


def _fault(group: str, name: str, cls: type, new: dict[tuple[str, str], type]) -> str:
    """What is wrong with a class; empty: nothing."""
    what = "name" if group == "loss" else "kind"
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        return f"{what} {name!r}: letters, digits and '_' are needed, a letter first."
    other = new.get((group, name)) or _known(group).get(name)
    if other is not None and not isinstance(other, type):
        other = type(other)
    if other is not None and other is not cls:
        return f"{what} {name!r} is taken by {other.__module__}.{other.__qualname__}. Take another."
    if lacks := sorted(getattr(cls, "__abstractmethods__", ())):
        return f"lacks {', '.join(lacks)}, which every class of its base has (docs/plugins.md)."
    if issubclass(cls, Spec):
        if get_origin(cls.model_fields["kind"].annotation) is not Literal or get_args(
            cls.model_fields["kind"].annotation
        ) != (name,):
            return f'kind: it must be written as `kind: Literal["{name}"] = "{name}"`.'
        needed = [key for key, field in cls.model_fields.items() if field.is_required()]
        if needed:
            return f"field '{needed[0]}' has no default; each needs one."
    try:
        source_digest(cls)
        cls()
    except OSError as error:
        return f"its source cannot be read ({error}), and is part of keys. Put it into a file."
    except (ValueError, TypeError) as error:
        return f"cannot be made with its defaults: {_in_short(error)}"
    return ""


def _in_short(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return error_text(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}={first['input']}: {first['msg']}."


def _known(group: str) -> dict[str, Any]:
    """What is registered in a group, ours and others'."""
    return OURS if group == "loss" else next(g.known for g in GROUPS if g.name == group)


def _add(group: str, name: str, cls: type) -> None:
    _ADDED[group, name] = cls
    ADDED.setdefault(group, set()).add(name)
    _known(group)[name] = cls() if group == "loss" else cls
    if issubclass(cls, Augmentation):
        AUGMENTATIONS[name] = cls
    if issubclass(cls, Official):
        OFFICIAL[name] = cls
