"""The house rules, kept by reading the source: imports go down, nothing heavy is loaded early, a
stage's version moves when its source does."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "seva_exp"
PINS = Path(__file__).parent / "stage_versions.json"

LEVELS = [
    {"errors", "spec", "runtime", "paths", "redact", "gpus"},
    {
        "randomness",
        "records",
        "digests",
        "progress",
        "images",
        "world",
        "fields",
        "given",
        "json_rows",
        "main_memory",
    },
    {"store", "events", "interfaces", "machine", "prompts", "views", "served"},
    {"models"},
    {"augment", "data", "generation", "training", "benchmarks"},
    {"methods"},
    {"stages", "environment", "sheet"},
    {"graph", "readiness"},
    {"rundir"},
    {"execution"},
    {"experiment"},
    {"report"},
    {"tracking", "compare", "lmms_eval"},
    {"config", "api", "objective"},
    {"job", "export", "reference"},
    {"sweep", "faults", "forecast"},
    {"cli", "dashboard"},
    {"__init__", "__main__"},
]
"""From the ground up. A module imports from lower levels only, and never from its own level but
from within its own package (the ground levels may import each other)."""
GROUND = 3

MODEL = [
    *("models/vlm.py", "models/adapter.py", "models/pixels.py", "models/padding.py"),
    *("images.py", "randomness.py"),
]
ATTENTION = ["models/branches.py", "models/attention.py", "models/vision.py"]
ENGINE = [
    *(f"generation/{name}.py" for name in ("engine", "loop", "rows", "ahead", "batches")),
    *("generation/slots.py", "generation/slot_attention.py", "generation/sampling.py"),
    "generation/noise.py",
    *ATTENTION,
]
SOURCES = {
    "samples": [
        "data", "world", "images.py", "randomness.py", "views.py", "fields.py", "given.py",
        "json_rows.py",
    ],
    "answers": [
        "generation/answers.py", "generation/engines.py", *ENGINE, "generation/asked.py",
        "served", "views.py", "augment", *MODEL,
    ],
    "pairs": ["generation/pairs.py", "generation/filters.py", "randomness.py"],
    "reference": ["training", "views.py", "augment", *MODEL, *ATTENTION],
    "align": ["training", "views.py", "augment", *MODEL, *ATTENTION],
    "infuse": ["prompts.py"],
    "finetune": ["training", *MODEL, *ATTENTION],
    "evaluate": [
        "benchmarks", "world", *ENGINE, *MODEL, "fields.py", "json_rows.py",
    ],
    "judge": ["benchmarks", "served", "randomness.py", "fields.py", "json_rows.py"],
    "compare": ["benchmarks", "randomness.py"],
}  # fmt: skip
"""What decides a stage's result, besides its spec."""


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
        ground = level < GROUND and other < GROUND
        assert other < level or ground, f"{own} imports {name} upward or sideways"


def test_only_the_cli_imports_hydra():
    for file in SOURCE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if file.name != "cli.py":
            assert "import hydra" not in text, file
            assert "from hydra" not in text, file


@pytest.mark.parametrize(
    "module", ["seva_exp", "seva_exp.experiment", "seva_exp.config", "seva_exp.api"]
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


def source_digest(names: list[str], body: ast.ClassDef) -> str:
    """A hash of what the code does: comments, docstrings and layout do not count."""
    files = [
        f for name in names for f in ([SOURCE / name] if "." in name else (SOURCE / name).glob("*"))
    ]
    text = without_texts(body)
    for file in sorted(f for f in files if f.suffix == ".py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        text += f"{file.relative_to(SOURCE)}\n{without_texts(tree)}\n"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_texts(tree: ast.AST) -> str:
    """The tree without docstrings (comments and layout are not in it)."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not _is_text(n)] or [ast.Pass()]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_a_stage_whose_source_changed_has_a_decision_about_its_version():
    """After an edit: raise the stage's ``version`` when old artifacts would now be wrong; then
    ``python tests/test_architecture.py`` writes the new pins."""
    pinned = json.loads(PINS.read_text(encoding="utf-8"))
    now = current_pins()
    for name, pin in now.items():
        assert pinned[name] == pin, (
            f"the source of stage '{name}' changed: raise its version if old artifacts are now "
            "wrong, then run `python tests/test_architecture.py`"
        )
    assert set(now) == set(stage_classes()), "a stage is missing in SOURCES"


def stage_classes() -> dict[str, type]:
    from seva_exp import stages

    found = [getattr(stages, name) for name in stages.__all__]
    return {cls.name: cls for cls in found if hasattr(cls, "version")}


def current_pins() -> dict[str, list]:
    classes = stage_classes()
    trees = [ast.parse(f.read_text(encoding="utf-8")) for f in (SOURCE / "stages").glob("*.py")]
    bodies = {n.name: n for tree in trees for n in tree.body if isinstance(n, ast.ClassDef)}
    return {
        name: [classes[name].version, source_digest(names, bodies[classes[name].__name__])]
        for name, names in SOURCES.items()
    }


if __name__ == "__main__":
    PINS.write_text(json.dumps(current_pins(), indent=1) + "\n", encoding="utf-8")
    print(PINS.read_text(encoding="utf-8"))
