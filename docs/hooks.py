"""MkDocs' hooks: pages that are made when the site is built, and links that work in both places."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from seva_exp.command import options_docs

ROOT = Path(__file__).parents[1]
ABOVE = ("README", "CONTRIBUTING", "CHANGELOG")
"""Pages of the checkout that the site has, too."""
MARK = "<!-- reference -->"
"""Where docs/config.md ends and what is made begins."""


def on_config(config: MkDocsConfig) -> None:
    """A page a config group stands behind the one page of options that the nav names."""
    groups = [f"config/{name}.md" for name in options_docs.pages() if name != "config"]
    config.nav = [_with(groups, entry) for entry in config.nav]


def _with(groups: list[str], entry: dict[str, Any]) -> dict[str, Any]:
    return {k: ["config.md", *groups] if v == "config.md" else v for k, v in entry.items()}


def on_files(files: Files, config: MkDocsConfig) -> None:
    """The pages of every option, and those of the checkout."""
    for name, text in options_docs.pages().items():
        if name != "config":
            files.append(File.generated(config, f"config/{name}.md", content=text))
    for name in ABOVE:
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, f"{name.lower()}.md", content=text))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """``../README.md``, as the forge has it, is ``readme.md`` here."""
    links = re.compile(rf"\]\(\.\./({'|'.join(ABOVE)})\.md")
    markdown = links.sub(lambda found: f"]({found[1].lower()}.md", markdown)
    if page.file.src_uri != "config.md":
        return markdown
    return markdown.replace(MARK, options_docs.pages()["config"])


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """The pages of options say so, for stylesheets/site.css."""
    options = page.file.src_uri.startswith("config")
    return f'<div class="options">{html}</div>' if options else html
