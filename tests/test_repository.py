"""What a host shows of the repository beside its code: CI, how to cite it, templates of issues."""

from __future__ import annotations

import os
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
"""Of a form's fields (GitHub's syntax of issue forms)."""


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def pythons() -> list[str]:
    """Those that pyproject.toml names."""
    label = "Programming Language :: Python :: "
    return [one.removeprefix(label) for one in project()["classifiers"] if one.startswith(label)]


def test_ci_runs_what_ci_runs_here_on_every_python_that_is_named() -> None:
    jobs = read(".github/workflows/ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == pythons()
    lowest = project()["requires-python"].removeprefix(">=")
    assert pythons()[0] == lowest
    said = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ".ci/run" in said
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words.split()[1] for words in said if words.startswith("make ")} <= targets


def test_the_citation_is_of_this_version_and_names_both_papers() -> None:
    """As ``cffconvert --validate`` asks (schema 1.2.0): authors, message, title, version."""
    cited = read("CITATION.cff")
    assert {"authors", "cff-version", "message", "title"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    mine = project()
    assert (cited["title"], cited["version"]) == (mine["name"], mine["version"])
    assert (cited["license"], cited["type"]) == (mine["license"], "software")
    assert isinstance(cited.get("date-released", date.today()), date)
    papers = {one["identifiers"][0]["value"]: one for one in cited["references"]}
    assert set(papers) == {"arXiv:2404.10501", "arXiv:2405.19716"}
    for paper in papers.values():
        assert paper["title"] and all(who["family-names"] for who in paper["authors"])
        number = paper["identifiers"][0]["value"].removeprefix("arXiv:")
        assert number in (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8") + "".join(
            file.read_text(encoding="utf-8") for file in (ROOT / "conf").rglob("*.yaml")
        )


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_an_issue_s_template_is_a_form_that_the_host_takes(file: Path) -> None:
    form = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.stem == "config":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(form)
    asked = [field["id"] for field in form["body"]]
    assert len(set(asked)) == len(asked)
    assert all(re.fullmatch(r"[\w-]+", name) for name in asked)
    for field in form["body"]:
        assert field["type"] in KINDS and field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_pages_that_a_template_names_are_there() -> None:
    for file in FORMS:
        for page in re.findall(r"docs/\w+\.md", file.read_text(encoding="utf-8")):
            assert (ROOT / page).is_file(), page
