"""Pages with texts that want to be more than text, in headless Chromium: no script of theirs runs,
no element is theirs, and they are read as what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from seva_exp.compare.files import write_comparison
from seva_exp.core.printable import printable
from seva_exp.core.records import Delta, ImageRef, Pair, PairCounts, Score
from seva_exp.report.html import HtmlReport
from seva_exp.runs.events import Outcome, PairExample

from ..hostile import ALL, HALVES, steering
from .test_in_a_browser import Shown, an_outcome

LOOKING = "() => [window.hit, document.querySelectorAll('main img[src=x], main script').length]"


def outcome_of(folder: Path, texts: list[str]) -> Outcome:
    """A run in which every name, question, answer, label and metric is one of the texts."""
    outcome = an_outcome(folder)
    Image.new("RGB", (72, 72), "red").save(folder / "a.png")
    examples = tuple(
        PairExample(
            Pair(text, ImageRef("a", "b"), text, text, (f"no {text}",), (text,), (), ()),
            folder / "a.png",
            {text: folder / "a.png"},
        )
        for text in texts
    )
    short = [text for text in texts if len(text) < 1000]
    scores = tuple(
        Score(model, text, text, text, 50.0, 40.0, 60.0, 10, text)
        for text in short
        for model in ("base", "aligned")
    )
    deltas = tuple(Delta(text, text, text, 1.0, 0.5, 1.5, 0.01) for text in short)
    report = replace(
        outcome.report,
        name=short[0],
        pairs=PairCounts(99, 10, dict.fromkeys(texts, 1)),
        scores=scores,
        deltas=deltas,
    )
    plan = replace(outcome.plan, config=dict.fromkeys(texts, texts[0]), overrides=tuple(texts))
    notes = {"samples": {"left_out": texts, "unusable": dict.fromkeys(texts, 1)}}
    return replace(
        outcome,
        plan=plan,
        report=report,
        examples=examples,
        stage_metrics=notes,
        environment=dict.fromkeys(short, texts[0]),
    )


def looked_at(window: Any, file: Path, charts: tuple[str, ...]) -> Any:
    shown = Shown(window, file, charts=charts)
    for opener in shown.page.query_selector_all("details"):
        opener.evaluate("one => { one.open = true; }")
    assert shown.page.evaluate(LOOKING) == [None, 0]
    assert shown.faults == [], "nothing was even tried: the policy had nothing to stop"
    assert [url for url in shown.asked if not url.startswith(("file:", "data:"))] == []
    return shown.page


def test_a_report_shows_every_text_as_text(browser, tmp_path):
    HtmlReport().finished(outcome_of(tmp_path, ALL))
    assert steering((tmp_path / "report.html").read_text(encoding="utf-8")) == []
    page = looked_at(browser, tmp_path / "report.html", ())
    questions = page.eval_on_selector_all(".question", "all => all.map(one => one.textContent)")
    assert questions == [printable(text).replace("\r", "") for text in ALL]
    chosen = page.eval_on_selector_all(".chosen", "all => all.map(one => one.textContent)")
    assert [one.removeprefix("Chosen") for one in chosen] == [printable(text) for text in ALL]
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280, "a long word is broken"


def test_a_comparison_shows_every_text_as_text(browser, make_run):
    texts = [text for text in ALL if len(text) < 1000 and text not in HALVES]
    runs = [
        make_run(f"r{number}", said=text, protocol=text, model={"kind": "hub", "path": text})
        for number, text in enumerate(texts)
    ]
    out = runs[0].parent / "compare.html"
    write_comparison(runs, out)
    assert steering(out.read_text(encoding="utf-8")) == []
    page = looked_at(browser, out, ("chart-scores",))
    said = page.inner_text("main")
    assert all(printable(text).split("\n")[0].strip() in said for text in texts if len(text) < 20)


def test_what_a_text_turns_around_is_its_own_line_alone(browser, tmp_path):
    HtmlReport().finished(outcome_of(tmp_path, ["עברית 12", "a\u202eb"]))
    page = looked_at(browser, tmp_path / "report.html", ())
    style = "one => getComputedStyle(one).unicodeBidi"
    for selector in (".question", ".view", ".answer", "dd", "th", "td", "code"):
        assert page.eval_on_selector(selector, style) == "isolate", selector
