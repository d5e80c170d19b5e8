"""The house rules, kept by reading the source: imports go down, nothing heavy is loaded early, a
stage's version moves when its source does."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from seva_exp.core.closure import Closure

SOURCE = Path(__file__).parents[1] / "src" / "seva_exp"
PINS = Path(__file__).parent / "stage_versions.json"

LEVELS = [
    {"core"},
    {"inputs", "world"},
    {"served"},
    {"models"},
    {"augment", "data", "decoding", "training", "benchmarks"},
    {"preferences", "methods"},
    {"stages"},
    {"runs"},
    {"experiment"},
    {"report"},
    {"tracking", "compare", "lmms_eval"},
    {"api"},
    {"command"},
    {"export", "options", "dashboard"},
    {"__init__", "__main__"},
]
"""From the ground up. A package imports from lower levels only, and never from its own level."""


def level_of(module: str) -> int:
    for level, names in enumerate(LEVELS):
        if module in names:
            return level
    raise AssertionError(f"seva_exp.{module} has no level: add it to LEVELS")


def runtime_imports(tree: ast.AST) -> list[str]:
    """Names imported from seva_exp, without those under ``if TYPE_CHECKING``."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seva_exp"):
            parts = (node.module or "").split(".")
            found += [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [a.name.split(".")[1] for a in node.names if a.name.startswith("seva_exp.")]
        else:
            found += runtime_imports(node)
    return found


@pytest.mark.parametrize(
    "file", sorted(SOURCE.rglob("*.py")), ids=lambda f: str(f.relative_to(SOURCE))
)
def test_imports_only_go_down(file: Path):
    # What is run with -m stands above all; nothing imports it.
    parts = file.relative_to(SOURCE).with_suffix("").parts
    own = "__main__" if parts[-1] == "__main__" else parts[0]
    level = level_of(own)
    for name in runtime_imports(ast.parse(file.read_text(encoding="utf-8"))):
        if name == own:
            continue
        other = level_of(name)
        assert other < level, f"{own} imports {name} upward or sideways"


HYDRA = ("command/cli.py", "command/hydra_private.py")


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
    heavy = [
        "torch",
        "transformers",
        "trl",
        "peft",
        "wandb",
        "kornia",
        "datasets",
        "httpx2",
        "hydra",
        "rapidfuzz",
    ]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
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


def stage_classes() -> dict[str, type]:
    from seva_exp import stages

    found = [getattr(stages, name) for name in stages.__all__]
    return {cls.name: cls for cls in found if hasattr(cls, "version")}


def current_pins(source: Path = SOURCE) -> dict[str, list]:
    code = Closure(source)
    return {
        name: [cls.version, code.digest(cls.__module__, cls.__name__)]
        for name, cls in stage_classes().items()
    }


if __name__ == "__main__":
    PINS.write_text(json.dumps(current_pins(), indent=1) + "\n", encoding="utf-8")
    print(PINS.read_text(encoding="utf-8"))
