"""The tree of modules in docs/architecture.md, from the modules' own docstrings.

    python docs/tree.py            write it anew; tests/test_packaging.py compares
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "seva_exp"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree of modules: python docs/tree.py -->\n", "<!-- end -->"
COLUMN, WIDTH = 34, 118
"""Where the phrases begin, and where a line ends."""


def tree() -> str:
    """The block between the marks."""
    lines = ["```", "src/seva_exp/", *_folder(PACKAGE, 1), "```", ""]
    return "\n".join(lines)


def _folder(folder: Path, depth: int) -> Iterator[str]:
    """Its modules, then its packages, each with its phrase."""
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield _line(file.name, phrase(file), depth)
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").is_file():
            yield _line(f"{inner.name}/", phrase(inner / "__init__.py"), depth)
            yield from _folder(inner, depth + 1)


def _line(name: str, said: str, depth: int) -> str:
    head = f"{'  ' * depth}{name} ".ljust(COLUMN)
    room = WIDTH - len(head)
    if len(said) > room:
        said = said[:room].rsplit(" ", 1)[0].rstrip(",;:") + " ..."
    return head + said


def phrase(file: Path) -> str:
    """The first sentence of a module's docstring. Raises ValueError where there is none."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{file}: a module says in its docstring what it is for")
    first = " ".join(text.split("\n\n")[0].split()).replace("``", "")
    return re.split(r"(?<=\w)(?<! al)\.(?= |$)", first, maxsplit=1)[0]


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{tree()}{END}{rest.split(END, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
