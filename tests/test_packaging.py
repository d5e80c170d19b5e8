"""The wheel holds all that the command needs; the Python API is what the README shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from seva_exp.core.closure import code_of
from seva_exp.stages import Pairs

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_conf_sweeps_model_and_page(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "sweeps", "wandb_sweeps"):
        for file in (ROOT / folder).rglob("*.y*ml"):
            assert f"seva_exp/{file.relative_to(ROOT)}" in names
    assert "seva_exp/models/tiny_checkpoint/model.safetensors" in names
    pages = ("base.html", "page.html", "changed.html", "words.html", "words.js", "words.css")
    assert {f"seva_exp/report/{page}" for page in pages} <= set(names)
    assert "seva_exp/compare/page.html" in names
    assert "seva_exp/augment/prompts/stic.yaml" in names
    assert "seva_exp/benchmarks/protocols/llava15.yaml" in names
    assert not [name for name in names if name.startswith(("tests", "docs"))]


def test_the_installed_wheel_runs_in_an_empty_folder(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, str(site / "bin" / "seva-exp"), "+aug=diffusion_noise"]
    short = ["data.samples=16", "benchmark.shapes.images=3", "tracker=none", "dpo.warmup_ratio=0"]
    done = subprocess.run(
        [*command, *short], cwd=empty, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (empty / "runs" / "latest" / "report.html").is_file()
    where = [sys.executable, "-c", "import seva_exp; print(seva_exp.__file__)"]
    out = subprocess.run(where, cwd=empty, env=environment, capture_output=True, text=True)
    assert str(site) in out.stdout
    (file,) = (empty / "runs" / "store" / "pairs").glob("*/manifest.json")
    code = json.loads(file.read_text())["environment"]["code"]
    assert code == code_of(Pairs), "the same code, from the checkout"


def snippets(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_s_python_example_runs(tmp_path, monkeypatch):
    (example,) = [s for s in snippets((ROOT / "README.md").read_text()) if "run(" in s]
    assert len(example.strip().splitlines()) < 10
    short = example.replace("samples=600", "samples=80").replace("images=400", "images=3")
    assert short != example
    monkeypatch.chdir(tmp_path)
    exec(compile(short, "README.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "runs" / "latest" / "report.html").is_file()


def test_the_readme_s_tree_and_the_architecture_page_are_today_s():
    """Written by ``python docs/tree.py``, from the modules' docstrings."""
    source = spec_from_file_location("tree", ROOT / "docs" / "tree.py")
    tree = module_from_spec(source)
    source.loader.exec_module(tree)
    assert tree.BEGIN + tree.tree() + tree.END in tree.PAGE.read_text(encoding="utf-8")
    for folder in ("conf", "src", "sweeps", "wandb_sweeps", "tests", "docs"):
        assert f"{folder}/" in (ROOT / "README.md").read_text(encoding="utf-8")
