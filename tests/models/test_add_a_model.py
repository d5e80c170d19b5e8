"""docs/add_a_model.md shows files and messages as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_a_model.md").read_text(encoding="utf-8")
FAMILIES = ROOT / "src" / "seva_exp" / "models" / "families"
SHOWN = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL)
FILES = [
    FAMILIES / "gemma3.py",
    FAMILIES / "__init__.py",
    ROOT / "conf" / "model" / "gemma3_4b.yaml",
]


@pytest.mark.parametrize(("block", "file"), list(zip(SHOWN, FILES, strict=True)))
def test_what_is_shown_is_what_is_there(block: tuple[str, str], file: Path) -> None:
    assert block[1] in file.read_text(encoding="utf-8")


def test_files_and_messages_that_the_page_names_exist() -> None:
    for name in re.findall(r"`((?:models|training|tests|conf)/[\w./]+\.(?:py|yaml))", PAGE):
        assert any((root / name).is_file() for root in (ROOT, ROOT / "src" / "seva_exp")), name
    [message] = re.findall(r"\(`(This processor .*?)`\)", PAGE)
    assert message in (ROOT / "src" / "seva_exp" / "models" / "vlm.py").read_text(encoding="utf-8")
