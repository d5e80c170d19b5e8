"""``changed.html``: what was fixed and broken, counted whole, shown in part, safe and quick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from seva_exp.benchmarks.changes import AnswerChanges, changes, quality
from seva_exp.core.errors import StageError
from seva_exp.core.records import Prediction, write_jsonl
from seva_exp.report.changed import render
from seva_exp.report.html import HtmlReport
from seva_exp.runs.events import Answered, Outcome

from .test_html_report import EVIL, a_delta, an_outcome, parse


def said(number: int, score: float | None, text: str = "", **counts: float) -> Prediction:
    text = text or f"it is {score}"
    names = f"q{number}", f"picture{number}", "color", "Which colour?"
    return Prediction(*names, text, text, "red", score, counts)


def ids(found: AnswerChanges) -> tuple[list[str], list[str]]:
    kept = (found.broken, found.fixed)
    first, second = ([change.before.sample_id for change in one] for one in kept)
    return first, second


def test_each_answer_is_fixed_broken_or_as_good_as_before():
    before = [said(0, 0), said(1, 1), said(2, 0.3), said(3, 1), said(4, 1, "red"), said(5, None)]
    after = [said(0, 1), said(1, 0), said(2, 1.0), said(3, 0.6), said(4, 1, "Red."), said(5, 1)]
    found = changes(before, after)
    assert ids(found) == (["q1", "q3"], ["q0", "q2"])
    assert (found.broken_total, found.fixed_total) == (2, 2)
    assert (found.same_total, found.reworded_total, found.unjudged_total) == (1, 1, 1)


def test_a_description_is_better_with_fewer_made_up_mentions():
    """Its score only tells whether there is any: three made up, then one, is still 0."""
    before, after = said(0, 0, wrong=3.0, mentions=5.0), said(0, 0, wrong=1.0, mentions=3.0)
    assert quality(after) > quality(before)
    assert ids(changes([before], [after])) == ([], ["q0"])
    assert ids(changes([after], [before])) == (["q0"], [])


def test_other_questions_are_refused():
    with pytest.raises(ValueError, match="'q0' and 'q1'"):
        changes([said(0, 1)], [said(1, 1)])
    with pytest.raises(ValueError, match="shorter"):
        changes([said(0, 1), said(1, 1)], [said(0, 1)])


def test_all_are_counted_and_a_few_are_kept_from_all_over_the_file():
    before = [said(i, 0) for i in range(1000)]
    after = [said(i, 1) for i in range(1000)]
    found = changes(before, after, most=50)
    assert (found.fixed_total, len(found.fixed)) == (1000, 50)
    places = [int(change.before.sample_id[1:]) for change in found.fixed]
    assert places == sorted(places)
    assert min(places) < 100 < 900 < max(places)
    assert all(sum(a <= p < a + 250 for p in places) >= 5 for a in range(0, 1000, 250))
    half = changes(before[:500], after[:500], most=50)
    shared = [p for p in places if p < 500]
    kept = {int(change.before.sample_id[1:]) for change in half.fixed}
    assert set(shared) <= kept, "another run with fewer changes shows the same ones"


def answered(folder: Path, before: list[Prediction], after: list[Prediction], **other) -> Answered:
    files = folder / "base.jsonl", folder / "aligned.jsonl"
    for path, rows in zip(files, (before, after), strict=True):
        write_jsonl(path, rows)

    def pictures(wanted) -> Iterator:
        for one in before:
            if one.sample_id in wanted:
                yield one.sample_id, lambda: Image.new("RGB", (640, 480), "red")

    return replace(Answered("bench", "llava15", *files, pictures), **other)


def an_answered_outcome(folder: Path, *found: Answered) -> Outcome:
    return replace(an_outcome(folder), answered=found)


def test_the_page_is_self_contained_escaped_and_shows_both_answers(tmp_path):
    before = [replace(said(0, 0, f"A blue {EVIL}"), prompt=EVIL, sample_id=EVIL, target=EVIL)]
    after = [replace(before[0], text="A red one", extracted=f"red {EVIL}", score=1.0)]
    outcome = an_answered_outcome(tmp_path, answered(tmp_path, before, after, benchmark=EVIL))
    page = render(outcome)
    parsed = parse(page)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    for _, attrs in parsed.tags:
        assert (attrs.get("src") or "data:").startswith("data:")
        assert (attrs.get("href") or "#").startswith("#") or attrs["href"] == "report.html"
        assert not [name for name in attrs if name.startswith("on")]
    assert "url(" not in page
    (image,) = [attrs for tag, attrs in parsed.tags if tag == "img"]
    assert (image["width"], image["height"]) == ("160", "120")
    assert "Base: wrong" in parsed.text
    assert "Aligned: right" in parsed.text
    assert f"read as: red {EVIL}" in parsed.text
    assert "A <mark>blue" in page
    assert "A <mark>red" in page


def test_links_lead_to_what_is_there(tmp_path):
    rows = [said(i, float(i % 2)) for i in range(10)]
    turned = [replace(row, score=1.0) for row in rows]
    parsed = parse(render(an_answered_outcome(tmp_path, answered(tmp_path, rows, turned))))
    there = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(there) == len(set(there))
    links = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    assert {link[1:] for link in links if link[0] == "#"} <= set(there)
    assert "#benchmark-0-fixed" in links
    assert "#benchmark-0-broken" not in links, "nothing was broken"


def test_a_lost_picture_costs_the_page_nothing(tmp_path):
    def lost() -> Image.Image:
        raise StageError("gone")

    one = answered(tmp_path, [said(0, 0)], [said(0, 1)], pictures=lambda wanted: [("q0", lost)])
    assert "no picture found" in render(an_answered_outcome(tmp_path, one))


def test_a_question_asked_behind_a_description_shows_what_each_was_asked(tmp_path):
    before, after = [said(0, 0)], [replace(said(0, 1), prompt="A red cube. Which colour?")]
    text = parse(render(an_answered_outcome(tmp_path, answered(tmp_path, before, after)))).text
    assert "Asked behind its own description" in text
    assert "A red cube. Which colour?" in text


def test_the_report_links_to_it_where_there_is_one(tmp_path):
    plain = an_outcome(tmp_path)
    HtmlReport().finished(plain)
    assert "changed.html" not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "changed.html").exists()
    rows = [said(0, 0)], [said(0, 1)]
    full = an_outcome(tmp_path, (a_delta(-1, 0.01, "lower"),))
    HtmlReport().finished(replace(full, answered=(answered(tmp_path, *rows),)))
    assert 'href="changed.html"' in (tmp_path / "report.html").read_text()
    assert "Broken" in (tmp_path / "changed.html").read_text()
    assert not list(tmp_path.glob("*.tmp"))
