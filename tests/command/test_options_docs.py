"""The pages of every option: no field, no file, no bound is left out."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from seva_exp import MOVED
from seva_exp.command import options_docs
from seva_exp.command.fields import known_fields
from seva_exp.core.field_docs import field_docs
from seva_exp.core.paths import config_dir, sweeps_dir

FILES = sorted([*config_dir().rglob("*.yaml"), *sweeps_dir().rglob("*.yaml")])
CLASSES = [(group, kind) for group, kinds in options_docs.CLASSES.items() for kind in kinds]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return options_docs.pages()


def section(page: str, kind: str) -> dict[str, str]:
    """The rows of one class's table by the field's name."""
    head = f"## Fields of `kind: {kind}`\n" if kind else "## Fields\n"
    text = page.split(head)[1].split("\n## ")[0]
    return {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}


@pytest.mark.parametrize(("group", "kind"), CLASSES)
def test_every_field_stands_there_with_what_it_means(group, kind, pages):
    rows = section(pages[group], kind)
    cls = options_docs.CLASSES[group][kind]
    for name, field in cls.model_fields.items():
        if name == "kind":
            continue
        said = " ".join(field_docs(cls)[name].split()).replace("``", "`")
        assert said in rows[name].replace("\\|", "|")
        assert ("must be set" in rows[name]) == field.is_required()
        if isinstance(field.default, (int, float, str)) and field.default not in ("", True, False):
            assert f"`{field.default}`" in rows[name].replace("↵", "\n")


def test_every_name_that_an_override_may_have_is_on_a_page(pages):
    """The command line's own list of fields, which suggestions are taken from."""
    for name in known_fields():
        name = name.replace("generation.contrast.", "generation.")
        group, *rest = name.replace("method.scores.", "score.").split(".")
        if group in ("instructions", "experiment") or (not rest and group in pages):
            continue
        shown = ".".join(
            rest[1:] if group in ("aug", "benchmark", "score") and len(rest) > 1 else rest
        )
        where = pages.get(group, "") + pages["config"]
        as_row = f"`{shown or group}`" in where or f"`{name}`" in where
        as_yaml = re.search(rf"^ *{re.escape(shown)}: .*#", where, flags=re.MULTILINE)
        assert shown == "kind" or as_row or as_yaml, name


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_file_stands_there_once_as_it_is(file, pages):
    text = file.read_text(encoding="utf-8").rstrip("\n")
    assert "```" not in text
    block = f'/{file.stem}.yaml"\n{text}\n```'
    assert sum(page.count(block) for page in pages.values()) == 1


def test_bounds_choices_and_inner_fields_are_told(pages):
    dpo, machine = section(pages["dpo"], ""), section(pages["machine"], "")
    assert "| number > 0 |" in dpo["beta"]
    assert "| number ≥ 0 < 1 |" in dpo["warmup_ratio"]
    assert "`cosine`, `linear`, `constant`" in dpo["schedule"]
    assert "integer ≥ 1 ≤ 1024, or `null`" in machine["threads"]
    assert "integer ≥ 1" in machine["server.concurrency"]
    assert "`sigmoid`" in dpo["loss"] and "`softmax`" in dpo["loss"]


def test_a_cell_stays_a_cell(pages):
    for name, page in pages.items():
        for row in re.findall(r"^\| `.*$", page, flags=re.MULTILINE):
            bare = re.sub(r"`[^`]*`", "", row)  # as Python-Markdown has it: a bar in code is text
            assert len(re.findall(r"(?<!\\)\|", bare)) == 5, f"{name}: {row}"


def test_a_group_that_is_not_there_is_refused(capsys):
    assert options_docs.main(["dpo"]) == 0
    assert capsys.readouterr().out.startswith("# `dpo`")
    assert options_docs.main(["agu"]) == 2
    assert "agu: no such group. Did you mean 'aug'" in capsys.readouterr().err


@pytest.mark.parametrize("old, new", MOVED.items())
def test_the_old_name_of_a_command_tells_the_new_one_in_a_line(old, new):
    ended = subprocess.run([sys.executable, "-m", old], capture_output=True, text=True)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert f"it is `python -m {new}` now" in ended.stderr
    assert find_spec(new)


def test_model_specific_defaults_stand_beside_the_class_s(pages):
    rows = section(pages["dpo"], "")
    assert "(`model=tiny`: `0.0001`; others: `2e-06`)" in rows["learning_rate"]
    assert "model=tiny" not in rows["beta"], "which is the same for all"
    assert (
        "`model=tiny`: `48`; others: `512`" in section(pages["generation"], "hf")["max_new_tokens"]
    )
    assert "model=tiny" not in section(pages["generation"], "server")["max_new_tokens"]
