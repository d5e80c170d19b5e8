"""``words.html`` in headless Chromium: whole at every width, each word reached by mouse, tap and
keyboard, what texts say is shown as text."""

from __future__ import annotations

import pytest

from seva_exp.core.printable import printable
from seva_exp.report.html import HtmlReport
from seva_exp.report.words import write_words

from ..compare.test_in_a_browser import SIZES, Shown, an_outcome
from ..hostile import ALL, HALVES, steering
from .explained import a_sample, an_answer, explained, with_words

TEXT = "The image shows a red circle, and nothing else that one could name."
CHOSEN = "document.activeElement.textContent"


@pytest.fixture
def file(tmp_path):
    first = an_answer(TEXT, [2.0, 0.1, 0.0, 0.4, -0.6, 4.0, 0.0], "base")
    samples = [
        a_sample("a", first, an_answer("A blue one.", [1.5], "aligned")),
        a_sample("b", an_answer("No", [-2.0]), status="broken"),
    ]
    return write_words(tmp_path, "a run", [explained(tmp_path / "explain", samples)])


def opened(window, path, width=1280, scheme="light") -> Shown:
    return Shown(window, path, width, scheme, charts=())


@pytest.mark.parametrize("width, scheme", SIZES)
def test_it_is_whole_at_every_width_in_light_and_dark(browser, file, width, scheme):
    shown = opened(browser, file, width, scheme)
    page = shown.page
    assert shown.faults == []
    assert [url for url in shown.asked if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ratio = """words => words.map(word => {
      const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
      const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const style = getComputedStyle(word);
      const [a, b] = [parse(style.color), parse(style.backgroundColor)].map(light);
      return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    })"""
    marked = page.eval_on_selector_all(".reading .more-1, .reading .more-2, .more-3", ratio)
    assert len(marked) > 3 and min(marked) >= 4.5, "shaded words are read"


def test_the_keyboard_reaches_every_word(browser, file):
    shown = opened(browser, file)
    page = shown.page
    stops = page.eval_on_selector_all("[role=option][tabindex='0']", "all => all.length")
    assert stops == 3, "one in each answer"
    page.locator("[role=option][tabindex='0']").first.focus()
    page.keyboard.press("Home")
    reached = [page.evaluate(CHOSEN)]
    while page.evaluate("document.activeElement.nextElementSibling !== null"):
        page.keyboard.press("ArrowRight")
        reached.append(page.evaluate(CHOSEN))
    assert "".join(reached) == TEXT.replace(" ", "")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(CHOSEN) == ".", "the last word stays"
    live = page.locator(".live").first
    assert live.inner_text().startswith(". · g 0 under base")
    assert live.get_attribute("aria-live") == "polite"
    block = page.locator(".answer-block").first
    assert block.locator(".row-of-maps.without").is_visible(), "a word without a map says so"
    page.keyboard.press("ArrowUp")
    assert page.evaluate(CHOSEN) == "The", "the word with a map"
    assert block.locator(".row-of-maps[data-word='0']").is_visible()
    assert not block.locator(".row-of-maps.without").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate(CHOSEN) == "A", "the next answer"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(CHOSEN) == "The", "it goes on where it was left"
    assert shown.faults == []


def test_the_pointer_and_a_tap_choose_a_word_in_each_column(browser, file):
    shown = opened(browser, file)
    page = shown.page
    block = page.locator(".answer-block").first
    block.locator(".reading").nth(2).get_by_text("circle").hover()
    assert block.locator(".live b").inner_text() == "circle"
    assert block.locator(".w.chosen").count() == 3, "in all three columns"
    assert block.locator("[aria-selected=true]").inner_text() == "circle"
    block.locator(".reading").first.get_by_text("red").click()
    assert page.evaluate(CHOSEN) == "red"
    assert "said in spite of the picture" in block.locator(".live").inner_text()


def test_the_slider_fades_to_the_worse_picture(browser, file):
    page = opened(browser, file).page
    slider = page.locator(".slider input").first
    worse = page.locator(".worse").first
    assert worse.get_attribute("opacity") == "0"
    slider.focus()
    page.keyboard.press("End")
    assert worse.get_attribute("opacity") == "1"


def test_without_a_script_every_map_is_there(browser, file):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(file.as_uri())
    rows = page.locator(".row-of-maps")
    seen = [rows.nth(i).is_visible() for i in range(rows.count())]
    assert sum(seen) == 3, "of each answer, and no more than there are"
    assert page.locator(".row-of-maps .saying").first.is_visible()
    assert (
        page.locator(".static").first.is_visible()
        and not page.locator(".slider").first.is_visible()
    )


def test_every_text_is_shown_as_text(browser, tmp_path):
    texts = [text for text in ALL if len(text) < 1000 and text not in HALVES]
    long = "a" * 20_000
    samples = [a_sample(text, an_answer(text, [2.0, -1.0]), says=text) for text in [*texts, long]]
    found = explained(tmp_path / "explain", samples, benchmark=texts[0], view=texts[-1])
    outcome = with_words(an_outcome(tmp_path), found)
    HtmlReport().finished(outcome)
    for name in ("words.html", "report.html"):
        assert steering((tmp_path / name).read_text(encoding="utf-8")) == []
        shown = opened(browser, tmp_path / name)
        hit = "[window.hit, document.querySelectorAll('main img[src=x], main script').length]"
        assert shown.page.evaluate(hit) == [None, 0]
        assert shown.faults == []
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= 1280
    shown = opened(browser, tmp_path / "words.html")
    said = shown.page.eval_on_selector_all(
        "[role=listbox]", "all => all.map(one => one.textContent)"
    )
    assert said == [printable(text).replace("\r", "") for text in [*texts, long]]
