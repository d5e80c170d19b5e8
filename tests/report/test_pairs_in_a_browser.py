"""The page of pairs in headless Chromium: filters, search, keys, and marks that become the file
that ``filters=[marked]`` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seva_exp import Experiment, Machine, Options, run
from seva_exp.augment import BadPrompt, LowResolution
from seva_exp.data import ShapesData
from seva_exp.preferences.marks import read_marks
from seva_exp.report.pairs_page import write_page
from seva_exp.runs import __main__ as runs
from seva_exp.runs.export import main as export

from ..compare.test_in_a_browser import SIZES, Shown


@pytest.fixture(scope="module")
def made(tmp_path_factory, shared_store) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("pairs")
    experiment = Experiment(
        aug={"low": LowResolution(), "bad": BadPrompt(prompts="tiny")},
        data=ShapesData(samples=24),
        benchmark={},
    )
    machine = Machine(store=str(shared_store), runs=str(folder), progress="off")
    return Path(run(experiment, machine, Options(stop_after="pairs"), listeners=[]).dir)


@pytest.fixture(scope="module")
def page(made, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("page") / "my pairs.html"
    assert runs.main(["pairs", str(made), "--page", str(file)]) == 0
    return file


def test_both_commands_write_the_same_page(made, page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [str(made), "--format", "page", "--out", "out"]
    assert export(words, {"page": write_page}) == 0
    assert Path("out/pairs.html").read_bytes() == page.read_bytes()
    capsys.readouterr()
    assert runs.main(["pairs", made.name, "--page", "--json", "--runs", str(made.parent)]) == 0
    assert json.loads(capsys.readouterr().out) == {"page": "pairs.html"}
    assert Path("pairs.html").read_bytes() == page.read_bytes()


def test_a_page_that_cannot_be_is_refused(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("marks.jsonl").write_text("mine")
    Path("a.html").mkdir()
    for said, why in {
        "marks.jsonl": "ends in .html: --page marks.html.",
        ".": "ends in .html: --page pairs.html.",
        "a.html": "is a folder.",
        "none/a.html": "there is no folder none.",
    }.items():
        assert runs.main(["pairs", str(made), "--page", said]) == 2
        assert why in capsys.readouterr().err
    assert Path("marks.jsonl").read_text() == "mine"


def rows(shown: Shown) -> list[str]:
    return shown.page.eval_on_selector_all(
        ".pair-row .where", "nodes => nodes.map(one => one.textContent)"
    )


def test_filters_and_search_leave_what_they_say(browser, page):
    shown = Shown(browser, page, charts=())
    every = rows(shown)
    assert len(every) > 10 and not shown.faults
    shown.page.select_option("#view", "bad")
    assert rows(shown) == [one for one in every if one.endswith("· bad")]
    shown.page.fill("#find", every[-1].split(" ")[0])
    assert rows(shown) == [one for one in every if one.split(" ")[0] == every[-1].split(" ")[0]
                           and one.endswith("· bad")]  # fmt: skip
    shown.page.fill("#find", "")
    shown.page.select_option("#view", "")
    longer, shorter = (_of_kind(shown, kind) for kind in ("longer", "shorter"))
    assert longer | shorter < {*every} and not longer & shorter
    few, many = (_of_kind(shown, kind) for kind in ("few", "many"))
    assert few | many == {*every} and not few & many
    assert not shown.faults


def _of_kind(shown: Shown, kind: str) -> set[str]:
    shown.page.select_option("#kind", kind)
    return {*rows(shown)}


def test_marks_by_keys_and_mouse_stay_and_become_a_file(browser, page, tmp_path):
    shown = Shown(browser, page, charts=())
    first, second, third, *_ = rows(shown)
    for key in ("j", "n", "j", "y", "j", "n", "u"):
        shown.page.keyboard.press(key)
    shown.page.click(".pair-row:nth-child(3) button.keep")
    shown.page.reload()
    shown.page.select_option("#marked", "keep")
    assert rows(shown) == [second, third]
    shown.page.select_option("#marked", "drop")
    assert rows(shown) == [first]
    with shown.page.expect_download() as found:
        shown.page.click("#download")
    file = tmp_path / "marks.jsonl"
    found.value.save_as(file)
    wanted = {first: "drop", second: "keep", third: "keep"}
    pairs = {tuple(one.split(" · ")): word for one, word in wanted.items()}
    assert read_marks(str(file), "filters") == pairs
    assert all({"sample_id", "view", "mark"} == json.loads(one).keys()
               for one in file.read_text().splitlines())  # fmt: skip
    assert not shown.faults


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_nothing_is_cut_or_asked_for(browser, page, width, scheme):
    shown = Shown(browser, page, width, scheme, charts=())
    assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert all(one.startswith(("file:", "data:")) for one in shown.asked)
    assert not shown.faults
