"""What README, quick start and tutorials show is what their commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ("README.md", "docs/quick_start.md", "docs/tutorial_seva.md", "docs/tutorial_stic.md")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^  ([\w.]+) +([0-9a-f]{12})  (?:to do|cached)$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
WHOLE = "python -m seva_exp +aug=diffusion_noise"


@pytest.fixture(autouse=True)
def _as_wide_as_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def plans() -> list[tuple[str, str, dict[str, str]]]:
    """(page, command, stage -> key) of each plan that is shown; the command stands above it, or
    (README) below."""
    found = []
    for name in DOCS:
        command = WHOLE
        for language, text in _BLOCK.findall((ROOT / name).read_text(encoding="utf-8")):
            lines = [line for line in text.splitlines() if line.startswith("python -m seva_exp ")]
            if language == "bash" and len(lines) == 1:
                command = lines[0].split("  #")[0]
            elif rows := dict(_ROW.findall(text)):
                found.append((name, command, rows))
    return found


@pytest.mark.parametrize(("page", "command", "rows"), plans(), ids=[p[0] for p in plans()])
def test_a_plan_s_keys_are_those_of_its_command(cli, page, command, rows):
    words = [word for word in shlex.split(command)[3:] if word != "dry_run=true"]
    assert dict(_ROW.findall(cli(*words, "dry_run=true").stdout)) == rows


def test_each_of_these_pages_shows_a_plan():
    assert {page for page, _, _ in plans()} == {*DOCS}


def shown(page: str) -> str:
    return "\n".join(t for lang, t in _BLOCK.findall((ROOT / page).read_text()) if not lang)


def stable(text: str) -> set[str]:
    """Lines without what differs from one machine or run to the next: seconds, rates, folders;
    lines that were broken are one again."""
    text = re.sub(r",\n  +(?=\S)", ", ", text)
    text = re.sub(r"(: )[\d.]+ s(?=$|  \()", r"\1", text, flags=re.MULTILINE)
    measured = "(tokens|questions) per second|loading seconds|peak memory gib"
    text = re.sub(rf",? ({measured}) [\d.e+-]+", "", text)
    return {line.rstrip() for line in text.splitlines() if line.strip()}


@pytest.mark.slow
def test_the_quick_command_prints_what_readme_and_tutorial_show(cli):
    printed = stable(cli("+aug=diffusion_noise", "tracker=none").stdout)
    wanted = re.compile(r"^\w[\w.]*: +\(|^pairs: \d|^  (pope|vqa|chair)|^shapes \(|^  better\*")
    readme = {line for line in stable(shown("README.md")) if wanted.search(line)}
    tutorial = {
        line
        for line in stable(shown("docs/tutorial_seva.md"))
        if wanted.search(line) and "of 600" not in line
    }
    assert readme
    assert readme - printed == set()
    assert tutorial - printed == set()


def commands_with_output(page: str) -> list[tuple[str, str]]:
    """Each command of a page with what is shown below it."""
    found: list[tuple[str, str]] = []
    for language, text in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "bash":
            found.append((text.strip(), ""))
        elif not language and found:
            found[-1] = (found[-1][0], found[-1][1] + text)
    return found


@pytest.mark.slow
def test_stic_s_commands_print_what_their_tutorial_shows(cli, tmp_path):
    """All but the plan, whose keys are looked at above and whose memory is the machine's. A row of
    a file is one of it."""
    shown_lines = 0
    for command, text in commands_with_output("docs/tutorial_stic.md"):
        if command.endswith("dry_run=true") and "must be set" not in text:
            continue
        printed = stable(cli(*shlex.split(command)[3:], "tracker=none").stdout)
        rows = tmp_path / "runs" / "latest" / "infuse" / "instructions.jsonl"
        for line in stable(text):
            if line.startswith('"prompt"'):
                assert line in rows.read_text(encoding="utf-8")
            else:
                assert line in printed, command
            shown_lines += 1
    assert shown_lines > 40


def test_the_picture_of_the_stages_shows_those_of_the_table():
    table = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## Config")[0]
    names = [name for row in re.findall(r"^\|(.*?)\|", table, re.M) for name in _CODE.findall(row)]
    stages = {name.partition(".")[0] for name in names if "=" not in name}
    assert {"samples", "explain", "judge", "weights"} <= stages
    picture = (ROOT / "docs/images/stages.svg").read_text(encoding="utf-8")
    drawn = {name.partition(".")[0] for name in re.findall(r'class="h"[^>]*>([\w.]+)<', picture)}
    assert stages - drawn == {"chosen_pairs", "given_pairs", "model_scores", "rejected"} & stages


@pytest.mark.parametrize(
    "word", ["resume", "hyperparameter", "inference", "merge", "delete", "cite", "pandas"]
)
def test_a_reader_who_searches_finds_a_page(word):
    pages = [file.read_text(encoding="utf-8").lower() for file in (ROOT / "docs").glob("*.md")]
    assert any(word in page for page in pages)


def test_pages_use_the_field_s_words():
    """Of the words that stood there before, those that a search can tell."""
    old = re.compile(
        r"asked (well|badly)|once badly|share ranked right|CHAIRi\b|is told (at once|before)"
    )
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert not (found := old.search(file.read_text(encoding="utf-8"))), (file.name, found)
