"""The house rules, kept by reading the source: imports go down, nothing heavy is loaded early, a
stage's version moves when its source does."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from seva_exp.core.closure import Closure
from seva_exp.stages import STAGES

SOURCE = Path(__file__).parents[1] / "src" / "seva_exp"
PINS = Path(__file__).parent / "stage_versions.json"

LEVELS = [
    {"core"},
    {"inputs", "world"},
    {"served"},
    {"models"},
    {"vllm"},
    {"augment", "data", "decoding", "training", "benchmarks"},
    {"scores"},
    {"plugins"},
    {"preferences", "methods"},
    {"grounding"},
    {"stages"},
    {"runs"},
    {"experiment"},
    {"report"},
    {"tracking", "compare", "lmms_eval", "ship", "side_by_side"},
    {"api"},
    {"command"},
    {"export", "options", "dashboard", "evaluate", "explain", "published", "watch", "ask"},
    {"__init__", "__main__"},
]
"""From the ground up. A package imports from lower levels only, and never from its own level."""


def level_of(module: str) -> int:
    for level, names in enumerate(LEVELS):
        if module in names:
            return level
    raise AssertionError(f"seva_exp.{module} has no level: add it to LEVELS")


@dataclass(frozen=True)
class Imported:
    """A module that another one imports. ``late``: inside a function; ``typing``: for annotations
    alone."""

    name: str
    late: bool
    typing: bool


@cache
def imports_of(module: str) -> list[Imported]:
    """What stands in a module of the package: modules of its own, and names of others'."""
    return list(_found(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def _found(node: ast.AST, late: bool = False, typing: bool = False) -> Iterator[Imported]:
    for part in ast.iter_child_nodes(node):
        names = []
        if isinstance(part, ast.Import):
            names = [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom):
            inside = (f"{part.module}.{alias.name}" for alias in part.names)
            names = [name if name in MODULES else part.module for name in inside]
        yield from (Imported(name, late, typing) for name in names)
        function = isinstance(part, ast.FunctionDef)
        checking = isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING"
        yield from _found(part, late or function, typing or checking)


def module_name(file: Path) -> str:
    parts = ("seva_exp", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(SOURCE.rglob("*.py"))}


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str):
    # What is run with -m stands above all; nothing imports it.
    parts = module.split(".")[1:] or ["__init__"]
    own = "__main__" if parts[-1] == "__main__" else parts[0]
    level = level_of(own)
    for one in imports_of(module):
        name = one.name.split(".")[1] if one.name.startswith("seva_exp.") else own
        assert name == own or level_of(name) < level, f"{own} imports {name} upward or sideways"


def test_no_modules_import_each_other():
    """Neither in functions nor for annotations: a type that two need lies below both."""
    edges = {module: {one.name for one in imports_of(module)} & set(MODULES) for module in MODULES}
    tuple(TopologicalSorter(edges).static_order())  # raises CycleError, which names the circle


def test_own_modules_are_imported_for_annotations_alone_by_the_package_only():
    """Its names are loaded when they are first used; elsewhere an import is light, or a protocol of
    ``core.interfaces`` does."""
    typing = {m for m in MODULES for one in imports_of(m) if one.typing and one.name in MODULES}
    known = {"seva_exp", "seva_exp.stages.base", "seva_exp.stages.loaded"}
    assert typing <= known | BY_VERB


HEAVY = {
    *("torch", "transformers", "trl", "peft", "accelerate", "wandb", "trackio", "kornia"),
    *("datasets", "httpx2", "hydra", "rapidfuzz", "numpy", "safetensors", "wandb_workspaces"),
    *("ray", "mlflow", "tensorboard"),
}


BY_VERB = {"seva_exp.runs.__main__"}
"""Commands of which each verb loads what it needs: a list of runs is there in half a second."""


def test_own_modules_are_imported_late_only_if_they_bring_something_heavy():
    for module in MODULES.keys() - BY_VERB:
        late = {one.name for one in imports_of(module) if one.late} & set(MODULES)
        needless = [name for name in late if not brought(name) - brought(module)]
        assert not needless, f"{module} can import at its top: {needless}"


@cache
def brought(module: str) -> set[str]:
    """The heavy libraries that importing a module loads."""
    loaded: set[str] = set()
    left = {module}
    while left:
        name = left.pop()
        loaded.add(name)
        early = {one.name for one in imports_of(name) if not (one.late or one.typing)}
        package = {name.rpartition(".")[0]} & set(MODULES)
        loaded |= early - set(MODULES)
        left |= (package | early & set(MODULES)) - loaded
    return {name.split(".")[0] for name in loaded} & HEAVY


HYDRA = (
    "command/cli.py",
    "command/hydra_errors.py",
    "command/hydra_plugins.py",
    "command/hydra_private.py",
)


def test_only_the_cli_imports_hydra():
    for file in SOURCE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if file.relative_to(SOURCE).as_posix() not in HYDRA:
            assert "import hydra" not in text, file
            assert "from hydra" not in text, file


PRIVATE = {
    "command/hydra_private.py": ("hydra._internal",),
    "training/trl_private.py": (
        "trl.trainer.",
        "._metrics",
        "._total_train_tokens",
        "._compute_loss",
    ),
    "training/peft_private.py": ("peft.tuners", "peft.utils", ".cast_input_dtype_enabled"),
    "training/transformers_private.py": ("._prepare_inputs", "._save_checkpoint"),
    "models/attention.py": ("._attn_implementation = ",),
}
"""The one module that uses each private part of a dependency."""


def test_a_dependency_s_private_parts_are_used_in_one_module():
    used = {part: set() for parts in PRIVATE.values() for part in parts}
    for file in SOURCE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for part, files in used.items():
            if part in text:
                files.add(file.relative_to(SOURCE).as_posix())
    assert used == {part: {file} for file, parts in PRIVATE.items() for part in parts}


@pytest.mark.parametrize(
    "module", ["seva_exp", "seva_exp.experiment", "seva_exp.command.config", "seva_exp.api"]
)
def test_importing_loads_nothing_heavy(module: str):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_stage_whose_source_changed_has_a_decision_about_its_version():
    """After an edit: raise the stage's ``version`` when old artifacts would now be wrong; then
    ``python tests/test_architecture.py`` writes the new pins."""
    assert unpinned() == [], (
        "the code of these stages changed: raise a stage's version if old artifacts are now wrong, "
        "then run `python tests/test_architecture.py`"
    )


def unpinned(source: Path = SOURCE) -> list[str]:
    """The stages whose version or code is not the pinned one."""
    pinned, now = json.loads(PINS.read_text(encoding="utf-8")), current_pins(source)
    return [name for name in now.keys() | pinned.keys() if now.get(name) != pinned.get(name)]


def current_pins(source: Path = SOURCE) -> dict[str, list]:
    code = Closure(source)
    return {
        name: [cls.version, code.digest(cls.__module__, cls.__name__)]
        for name, cls in STAGES.items()
    }


if __name__ == "__main__":
    PINS.write_text(json.dumps(current_pins(), indent=1) + "\n", encoding="utf-8")
    print(PINS.read_text(encoding="utf-8"))
