"""What docs/add_a_method.md and its neighbours say is enough to add a piece: the files that they
show are written into a copy of source and configs, those and no others, and what was added is
run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from .slow import slow_but

ROOT = Path(__file__).parents[1]
SHOWN = re.compile(r'```(?:py|yaml|diff) title="([^"]+)"\n(.*?)```', re.DOTALL)
ROW = re.compile(r"^\| ([a-z ]+) \| (\d) \| (`.+`) \|$", re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def shown(name: str) -> dict[str, str]:
    """File -> what a page shows of it: all of it, or a change."""
    found = SHOWN.findall(page(name))
    assert len(dict(found)) == len(found), "a file is shown once"
    return dict(found)


TABLE = {
    what: (int(n), re.findall(r"`([^`]+)`", files))
    for what, n, files in ROW.findall(page("add_a_method"))
}
MOST = {
    "an augmentation": 2,
    "another source of rejected answers": 2,
    "a score of candidates": 2,
    "a loss": 2,
    "a model family": 2,
    "a method": 3,
    "a stage": 4,
    "a benchmark": 4,
}
"""Files that an addition may take (issue 16)."""


@dataclass(frozen=True)
class Addition:
    """``page`` shows the files; ``words`` run what they add, and ``told`` is told of it."""

    page: str
    name: str
    words: str
    told: str


ADDITIONS = {
    "an augmentation": Addition(
        "add_an_augmentation", "swap_channels", "+aug=swap_channels stop_after=pairs", "pairs: "
    ),
    "another source of rejected answers": Addition(
        "add_a_method", "shuffle_words", "+aug=shuffle_words stop_after=pairs", "pairs: "
    ),
    "a score of candidates": Addition(
        "add_a_method",
        "brevity",
        "method=best_of_k +score=brevity method.candidates=2 stop_after=pairs",
        "pairs: ",
    ),
    "a loss": Addition(
        "add_a_loss",
        "stay",
        "+aug=diffusion_noise dpo=stay dpo.batch_size=4 stop_after=align",
        "loss first 0.6931,",
    ),
    "a method": Addition(
        "add_a_method",
        "describe",
        "method=describe method.prompts=tiny +aug=moco stop_after=pairs",
        "pairs: ",
    ),
    "a stage": Addition(
        "add_a_method", "lengths", "+aug=diffusion_noise stop_after=lengths", "lengths: "
    ),
    "a benchmark": Addition(
        "add_a_benchmark",
        "existence",
        "+aug=diffusion_noise benchmark=existence benchmark.protocol=llava15 data_root=data "
        "stop_after=evaluate.base",
        "existence",
    ),
}
"""What is added here; tests/models/test_add_a_model.py adds a family."""


def test_the_table_tells_of_every_addition_within_its_bound():
    assert {what: n for what, (n, _) in TABLE.items()}.keys() == MOST.keys()
    for what, (number, files) in TABLE.items():
        assert number == len(files) <= MOST[what], what
        for file in files:
            assert "NAME" in file or (ROOT / file).is_file(), file
    assert MOST.keys() - ADDITIONS.keys() == {"a model family"}


def changed(text: str, change: str) -> str:
    """``text`` with a change as the pages show one: hunks apart by ``@@``, each of which is found
    once."""
    for hunk in change.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"{text.count(old)} times there:\n{old}"
        text = text.replace(old, new)
    return text


def add(what: str, checkout: Path) -> None:
    """Write the files that the table names for an addition, and no others."""
    addition, (_, files) = ADDITIONS[what], TABLE[what]
    found = shown(addition.page)
    for file in (file.replace("NAME", addition.name) for file in files):
        target = checkout / file
        new = changed(target.read_text(), found[file]) if target.exists() else found[file]
        target.write_text(new, encoding="utf-8")


def copy(checkout: Path) -> Path:
    """Source and configs; the embedded model's weights are links."""
    for name in ("src", "conf", "sweeps"):
        ignored = shutil.ignore_patterns("*.pyc", "__pycache__", "*.safetensors")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    for file in (ROOT / "src").rglob("*.safetensors"):
        (checkout / file.relative_to(ROOT)).symlink_to(file)
    return checkout


def run(checkout: Path, words: str, store: Path) -> subprocess.CompletedProcess[str]:
    always = (
        f"data.samples=16 machine.store={store} machine.device=cpu machine.progress=off "
        "tracker=none"
    )
    benchmark = [] if "benchmark=" in words else ["benchmark=none"]
    return subprocess.run(
        [sys.executable, "-m", "seva_exp", *words.split(), *always.split(), *benchmark],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """One for all: the clean answers are asked once."""
    return tmp_path_factory.mktemp("additions") / "store"


def questions(data: Path) -> None:
    """The files of the added benchmark."""
    (data / "existence" / "images").mkdir(parents=True)
    Image.new("RGB", (72, 72), "red").save(data / "existence" / "images" / "a.png")
    rows = [
        {"id": f"{i}", "image": "a.png", "text": "Is there a ring?", "label": label}
        for i, label in enumerate(("yes", "no"))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "existence" / "questions.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("what", slow_but(["a loss", "a benchmark", "a stage"], of=ADDITIONS))
def test_the_files_that_are_named_are_enough(what, tmp_path, store):
    checkout = copy(tmp_path / "checkout")
    addition = ADDITIONS[what]
    add(what, checkout)
    questions(checkout / "data")
    done = run(checkout, addition.words, store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert addition.told in done.stdout, done.stdout


def test_without_them_it_is_refused(tmp_path, store):
    """Else the runs above would prove nothing."""
    checkout = copy(tmp_path / "checkout")
    for addition in ADDITIONS.values():
        done = run(checkout, f"{addition.words} dry_run=true", store)
        assert done.returncode == 2 and addition.name in done.stderr, done.stderr
