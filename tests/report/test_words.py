"""``words.html`` and its part of ``report.html``: whole, self-contained, safe, and right about what
is shaded, hatched and counted."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from seva_exp.core.records import Score
from seva_exp.report.console import Console
from seva_exp.report.html import HtmlReport
from seva_exp.report.html import render as render_report
from seva_exp.report.words import (
    chosen,
    few,
    in_order,
    line,
    nats,
    pieces,
    render,
    shade,
    verdict,
    write_words,
)

from .explained import a_sample, an_answer, explained, with_words
from .test_html_report import EVIL, an_outcome, parse

TEXT = "A red circle, yes."


def the_page(tmp_path, *samples, **other) -> str:
    return render("run", [explained(tmp_path, samples, **other)])


def test_the_page_is_valid_self_contained_and_escaped(tmp_path):
    answer = an_answer(f"{EVIL} {EVIL}", [2.0], prompt=EVIL)
    sample = a_sample(EVIL, answer, says=EVIL)
    found = explained(tmp_path, [sample], benchmark=EVIL, view=EVIL)
    file = write_words(tmp_path, EVIL, [found])
    assert file == tmp_path / "words.html"
    page = file.read_text(encoding="utf-8")
    parsed = parse(page)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    assert [tag for tag, _ in parsed.tags].count("script") == 1, "ours"
    for _, attrs in parsed.tags:
        for name in ("src", "href", "xlink:href", "srcset"):
            value = attrs.get(name) or "data:"
            assert value.startswith(("data:", "#")) or value == "report.html"
        assert not [name for name in attrs if name.startswith("on")]
    assert set(re.findall(r"url\((.*?)\)", page)) == {"#hatching"}
    assert "<script>alert" not in page
    said = "".join(dict(attrs).get("data-told") or "" for _, attrs in parsed.tags)
    assert f"g against {EVIL}" in said


def test_the_answer_s_text_is_whole_and_each_word_stands_in_it_once(tmp_path):
    answer = an_answer(TEXT, [0.0, 2.0, 5.0, -0.5, 0.4])
    found = pieces(answer, ["x"] * len(answer.words))
    assert "".join(one["text"] for one in found) == TEXT
    assert [one["word"] for one in found if one["word"] is not None] == list(range(6))
    parsed = parse(the_page(tmp_path, a_sample("a", answer)))
    options = [attrs for _, attrs in parsed.tags if attrs.get("role") == "option"]
    assert [one["data-word"] for one in options] == list("012345")
    classes = [(one["class"] or "").split()[1:] for one in options]
    assert classes == [[], ["more-2"], ["more-3"], ["less-1"], ["more-1"], ["more-1"]]
    assert "data-mapped" in options[0] and "data-mapped" not in options[1]


@pytest.mark.parametrize(
    "g, rests, shown, word",
    [
        (0.2, 1.0, "", "said whatever the picture"),
        (0.25, 1.0, "more-1", "leans on the picture"),
        (1.5, 1.0, "more-2", "rests on the picture"),
        (3.0, 1.0, "more-3", "rests on the picture"),
        (1.5, 2.0, "more-1", "leans on the picture"),
        (-0.2, 1.0, "", "said whatever the picture"),
        (-0.3, 1.0, "less-1", "said in spite of the picture"),
        (-4.0, 1.0, "less-3", "said in spite of the picture"),
    ],
)
def test_a_shade_goes_by_the_run_s_own_threshold(g, rests, shown, word):
    assert shade(g, rests) == shown
    assert verdict(g, rests) == word


def test_numbers_are_told_in_text(tmp_path):
    both = an_answer("red one", [2.0, -0.5], "base"), an_answer("blue", [1.2], "aligned")
    text = parse(the_page(tmp_path, a_sample("a", *both))).text
    assert "Asked again under weak views: base 1 of 5 agree, aligned 5 of 5 agree" in text
    assert "1 of 2 words" in text and "1 of 1 word" in text
    assert "0.75 nats" in text, "the mean of 2 and -0.5"
    assert "strongest 1.00 nats" in text and "strongest −1.00 nats" in text
    assert "g 2.00 under base, 2.20 under aligned (+0.20) nats: rests on the picture" in text
    assert "log p −0.50 and −0.25" in text and "g against noise 1.00 and 1.00" in text
    assert "+0.004" in text, "a small change is told in the digits of its own interval"


def test_a_map_that_no_part_decides_is_told(tmp_path):
    answer = an_answer("red", [60.0])
    text = parse(the_page(tmp_path / "a", a_sample("a", answer))).text
    assert "no part alone decides it: hiding one takes 1.00 nats at most" in text
    text = parse(the_page(tmp_path / "b", a_sample("a", an_answer("red", [4.0])))).text
    assert "no part alone" not in text


def test_the_word_that_a_part_decides_is_shown_first():
    """Not "The" of large g whose map is noise."""
    answer = an_answer("The red one", [9.0, 2.0, 0.0])
    sure, decided = answer.maps[0], answer.maps[0].model_copy(update={"word": 1})
    weak = tuple(one / 1000 for one in sure.base)
    sure = sure.model_copy(update={"base": weak, "aligned": weak})
    both = answer.model_copy(update={"maps": (sure, decided)})
    assert chosen(both) == 1 and [one.word for one in in_order(both)] == [1, 0]
    assert chosen(answer.model_copy(update={"maps": ()})) == 0


def test_small_values_keep_a_digit():
    assert [nats(one) for one in (0.0, 0.00001, 0.0003, -0.012, 0.5, -12)] == [
        *("0", "0", "0.0003", "−0.012", "0.50", "−12.00")
    ]


def test_each_picture_is_in_the_page_once(tmp_path):
    page = the_page(tmp_path, a_sample("a", an_answer("red", [2.0]), an_answer("blue", [2.0])))
    ids = re.findall(r'id="(w0-0-\w+)"', page)
    assert ids == ["w0-0-clean", "w0-0-worse", "w0-0-slider"]
    assert page.count('href="#w0-0-clean"') == 1 + 2 * 2 * 3
    assert len(re.findall(r"data:image/png", page)) == 2 + 2 * 3


def test_a_lost_picture_costs_the_page_nothing(tmp_path):
    found = explained(tmp_path, [a_sample("a", an_answer("red", [2.0]))])
    (tmp_path / "pictures" / "0.png").unlink()
    assert "no picture" in parse(render("run", [found])).text


def test_an_empty_answer_and_an_empty_stage_are_told(tmp_path):
    assert "(nothing)" in parse(the_page(tmp_path / "a", a_sample("a", an_answer("", [0])))).text
    assert "No sample is shown" in parse(the_page(tmp_path / "b")).text
    assert "Nothing was explained" in parse(render("run", [])).text


def test_few_samples_are_of_every_status_and_those_that_moved_most(tmp_path):
    quiet, loud = (an_answer("red", [g]) for g in (0.1, 9.0))
    kinds = {
        "fixed": [a_sample("a", quiet), a_sample("b", loud), a_sample("c", quiet)],
        "broken": [a_sample("d", quiet, status="broken")],
        "unchanged": [],
    }
    taken = few(kinds, 3)
    assert taken["fixed"][0].id == "b"
    assert [len(some) for some in taken.values()] == [2, 1, 0]


def test_the_report_has_a_part_of_it_and_leads_to_it(tmp_path, capsys):
    plain = an_outcome(tmp_path)
    HtmlReport().finished(plain)
    assert "words.html" not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "words.html").exists()
    answers = an_answer(f"red {EVIL}", [2.0]), an_answer("blue", [2.0])
    samples = [a_sample(f"s{i}", *answers) for i in range(5)]
    outcome = with_words(plain, explained(tmp_path / "explain", samples))
    HtmlReport().finished(outcome)
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = parse(report)
    assert 'href="words.html"' in report and "<script" not in report
    assert report.count('<article class="sample') == 3
    assert len(re.findall(r'<div class="row-of-maps" ', report)) == 3 * 2
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert (tmp_path / "words.html").read_text().count("<article") == 5
    assert parsed.text.count("mean g of a word, nats") == 1
    words = Score("base", "shapes", "words", "g", 1.5, 1, 2, 9, "words-v1", "neutral")
    again = replace(outcome, report=replace(outcome.report, scores=(words,)))
    assert "words-v1" not in parse(render_report(again)).text, "it has a part to itself"
    assert "words-v1" in parse(render_report(replace(again, explained=()))).text
    Console().finished(outcome)
    told = [one for one in capsys.readouterr().out.splitlines() if one.startswith("words: ")]
    assert told and told[0].endswith("/words.html")
    assert line(outcome.explained) in told[0]
    assert line(outcome.explained) == (
        "shapes: 40 % of words rest on the picture, aligned 40 %, mean g 1.50 and 1.50 nats"
    )
