"""The site is built strictly, needs no network, and its links work on the forge as well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seva_exp.command import options_docs

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


def test_the_site_has_every_page_and_every_option(site):
    for file in (ROOT / "docs").glob("*.md"):
        assert (site / file.with_suffix(".html").name).is_file()
    for group in options_docs.pages():
        assert (
            site / "config.html" if group == "config" else site / f"config/{group}.html"
        ).is_file()
    overview = (site / "config.html").read_text(encoding="utf-8")
    assert "stop_after" in overview and "reference --" not in overview
    assert not list(site.rglob("*.py"))


def test_nothing_is_loaded_from_elsewhere(site):
    loads = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(?:https?:)?//[^\s>]*")
    styles = re.compile(r"<link[^>]*(?:stylesheet|preconnect|preload|icon)[^>]*(?:https?:)?//[^>]*")
    fetched = re.compile(r"(?:url\(|@import\s)[\"']?(?:https?:)?//[^)]*")
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert not loads.findall(text) and not styles.findall(text), file.name
    for file in site.rglob("*.css"):
        assert not fetched.findall(file.read_text(encoding="utf-8")), file.name


def test_the_readme_is_a_page_and_links_both_ways(site):
    assert 'href="readme.html' in (site / "index.html").read_text(encoding="utf-8")
    assert 'href="tiny_world.html"' in (site / "readme.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_work_on_the_forge(file):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (file.parent / target.split("#")[0]).exists(), target
