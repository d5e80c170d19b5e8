"""Ways in which code can reach code that a reader of names could miss: each is followed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from seva_exp.core.closure import Closure

from ..test_architecture import SOURCE

BASE = "from seva_exp.stages.base import Stage\n"
TREE = {
    "__init__.py": "",
    "stages/__init__.py": "",
    "stages/base.py": "class Stage:\n    def run(self): ...\n",
    "stages/other.py": f"{BASE}class Mid(Stage):\n    def run(self): return 1\n",
    "a.py": "def f(): return 1\n",
    "b.py": "def f(): return 1\n",
    "p/__init__.py": (
        "from seva_exp.p.table import TABLE\nfrom seva_exp.a import f\nTABLE['k'] = 1\n"
    ),
    "p/table.py": "TABLE = {}\n",
    "effect.py": "from seva_exp.p.table import TABLE\nTABLE['late'] = 1\n",
    "two.py": (
        "from seva_exp.a import f\n"
        "class Both:\n"
        "    def a(self): return f()\n"
        "    def b(self):\n"
        "        from seva_exp.b import f\n"
        "        return f()\n"
        "class Each:\n"
        "    def a(self):\n"
        "        from seva_exp.a import f\n"
        "        return f()\n"
        "    def b(self):\n"
        "        from seva_exp.b import f\n"
        "        return f()\n"
    ),
}


def stage(*body: str, top: str = "") -> str:
    """A module with one stage that does this."""
    lines = "".join(f"        {line}\n" for line in body)
    return f"{BASE}{top}class One(Stage):\n    def run(self):\n{lines}"


def digest(folder: Path, name: str, text: str) -> str:
    """Of the stage ``name`` in a module of this text, which stands beside ``TREE``."""
    for file, content in (TREE | {"stages/one.py": text}).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content)
    return Closure(folder).digest("seva_exp.stages.one", name)


FOLLOWED = {
    "a package as a value": (
        stage("from seva_exp import p", "return getattr(p, 'f')()"),
        ("a.py", "return 1"),
    ),
    "what a package does when a module of it is imported": (
        stage("from seva_exp.p.table import TABLE", "return TABLE"),
        ("p/__init__.py", "= 1"),
    ),
    "an import for what it does": (
        stage("from seva_exp import effect", "from seva_exp.p import table", "return table.TABLE"),
        ("effect.py", "= 1"),
    ),
    "methods that import one name, each in its way, the first": (
        stage("from seva_exp.two import Each", "return Each().a()"),
        ("a.py", "return 1"),
    ),
    "methods that import one name, each in its way, the second": (
        stage("from seva_exp.two import Each", "return Each().b()"),
        ("b.py", "return 1"),
    ),
    "a name that is bound anew in another method": (
        stage("from seva_exp.two import Both", "return Both().a()"),
        ("a.py", "return 1"),
    ),
    "an import that may fail": (
        stage(
            "return f()",
            top="try:\n    from seva_exp.a import f\nexcept ImportError:\n"
            "    from seva_exp.b import f\n",
        ),
        ("b.py", "return 1"),
    ),
    "a module whose import may fail": (
        stage(
            "return a.f()",
            top="try:\n    from seva_exp import a\nexcept ImportError:\n    a = None\n",
        ),
        ("a.py", "return 1"),
    ),
    "what is there where no types are checked": (
        stage("return X", top="if TYPE_CHECKING:\n    X = 0\nelse:\n    X = 1\n"),
        ("stages/one.py", "X = 1"),
    ),
    "what is not there where types are checked": (
        stage("return X", top="if not TYPE_CHECKING:\n    X = 1\n"),
        ("stages/one.py", "X = 1"),
    ),
    "a base by its module": (
        "from seva_exp.stages import other\nclass One(other.Mid): ...\n",
        ("stages/other.py", "return 1"),
    ),
    "a base with parameters": (
        "from seva_exp.stages.other import Mid\nclass One(Mid[int]): ...\n",
        ("stages/other.py", "return 1"),
    ),
    "a statement in a class": (
        f"{BASE}class One(Stage):\n    T = {{}}\n    T['k'] = 1\n"
        "    def run(self): return self.T\n",
        ("stages/one.py", "] = 1"),
    ),
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_what_is_reached_is_followed(tmp_path, case):
    text, (file, old) = FOLLOWED[case]
    before = digest(tmp_path, "One", text)
    said = (tmp_path / file).read_text()
    assert old in said
    (tmp_path / file).write_text(said.replace(old, old.replace("1", "2")))
    assert Closure(tmp_path).digest("seva_exp.stages.one", "One") != before


READ = {
    "an attribute": ["return self.first.read()"],
    "a walrus": ["return (x := self.first).read()"],
    "an annotated name": ["x: First = self.first", "return x.read()"],
    "one of several": ["x, *y = self.first, 1", "return x.read()"],
    "pairs": ["return [x.read() for x, y in zip((self.first,), (1,))]"],
    "numbers": ["for i, x in enumerate([self.first]):", "    return x.read()"],
    "a mapping": ["return {1: self.first}[1].read()"],
    "a list that is made": ["return next(iter([one for one in [self.first]])).read()"],
    "a context": ["with self.first as x:", "    return x.read()"],
    "a copy": ["return replace(self.first, a=1).read()"],
    "a function that is told what it returns": ["return found(self).read()"],
    "the class": ["return First.read(self.first)"],
    "a heir": ["return self.above.read()"],
}


@pytest.mark.parametrize("case", READ)
def test_what_is_read_of_another_stage_counts(tmp_path, case):
    """And nothing else of it."""
    body = "".join(f"        {line}\n" for line in READ[case])
    text = (
        f"{BASE}class Above(Stage):\n    def read(self): ...\n"
        "class First(Above):\n    def read(self): return 1\n    def run(self): return 7\n"
        "def found(x) -> First: return x.first\n"
        f"class Second(Stage):\n    first: First\n    above: Above\n    def run(self):\n{body}"
    )
    before = digest(tmp_path, "Second", text)
    assert digest(tmp_path, "Second", text.replace("return 1", "return 2")) != before
    assert digest(tmp_path, "Second", text.replace("return 7", "return 8")) == before


def test_nothing_is_brought_by_names_that_cannot_be_read():
    """``import_module(name)``, ``from x import *``; of a stage ``getattr(stage, name)``."""
    allowed = {
        SOURCE / "__init__.py",  # for those who use the package; not the package itself
        SOURCE / "runs" / "__init__.py",  # the same
        SOURCE / "plugins.py",  # modules of others, whose code is hashed by itself
        SOURCE / "core" / "modules.py",  # what is called with it is followed (``EVERY``)
    }
    for file in sorted(set(SOURCE.rglob("*.py")) - allowed):
        names = {"import_module", "__import__"}
        names |= {"getattr"} if file.parent == SOURCE / "stages" else set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1]
            assert called not in names, f"{file}:{node.lineno}"
            taken = [one.name for one in node.names] if isinstance(node, ast.ImportFrom) else []
            assert "*" not in taken, f"{file}:{node.lineno}"
