"""``report.html``: whole, self-contained, safe, and right about what is better."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from seva_exp.events import Example, Outcome, Plan
from seva_exp.records import Delta, ImageRef, Pair, PairCounts, Report, Score, StageResult
from seva_exp.report.html import HtmlReport, command, marked, picture, render
from seva_exp.report.verdict import change, label, number, p_value, share, verdict

EVIL = "<script>alert(1)</script> \"quoted\" 'x' & </p>"
VOID = {"meta", "img", "br", "hr", "link", "input", "line", "rect", "circle", "polyline"}


class Balance(HTMLParser):
    """Collects tags and checks that each one is closed in its order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: str) -> Balance:
    balance = Balance()
    balance.feed(page)
    balance.close()
    assert balance.open == []
    return balance


def a_delta(value: float, p: float, better: str, metric: str = "CHAIRi") -> Delta:
    return Delta("shapes", "all", metric, value, value - 0.5, value + 0.5, p, better)


def an_outcome(folder: Path, deltas: tuple[Delta, ...] = ()) -> Outcome:
    small, large = folder / "small.png", folder / "large.png"
    Image.new("RGB", (72, 72), "red").save(small)
    Image.new("RGBA", (900, 600), (0, 0, 255, 90)).save(large)
    pair = Pair(
        EVIL, ImageRef("a", "b"), EVIL, f"yes {EVIL}", (f"no {EVIL}", "x"), (EVIL, "prompt"), (), ()
    )
    scores = tuple(
        Score(model, "shapes", "all", d.metric, v, v - 1, v + 1, 500, EVIL, d.better)
        for d in deltas
        for model, v in (("base", 20.0), ("aligned", 20.0 + d.value))
    )
    stages = (
        StageResult("pairs", "ab" * 32, True, 2.0),
        StageResult("align", "cd" * 32, False, 75.0),
    )
    report = Report(
        "e" * 64, EVIL, 0, str(folder), stages, PairCounts(10, 6, {EVIL: 4}), scores, deltas
    )
    config = {
        "method": {"kind": "seva"},
        "aug": {EVIL: {}},
        "model": {"api_key": "SECRET", "x": EVIL},
    }
    plan = Plan("e" * 64, EVIL, 0, config, (f"name={EVIL}", "model.api_key=SECRET"), (), folder)
    training = tuple({"step": i, "loss": 0.7 - i / 50, "rewards/margins": i / 9} for i in range(9))
    example = Example(pair, small, {EVIL: large})
    metrics = {"align": {EVIL: EVIL, "loss": 0.5}}
    return Outcome(plan, report, (example,), training, metrics, {"python": EVIL, "git": None})


def test_the_page_is_valid_self_contained_and_escaped(tmp_path: Path) -> None:
    outcome = an_outcome(tmp_path, (a_delta(-1, 0.01, "lower"),))
    HtmlReport().finished(outcome)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = parse(page)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    for _, attrs in parsed.tags:
        for name in ("src", "href", "srcset", "xlink:href", "action"):
            assert (attrs.get(name) or "data:").startswith("data:")
        assert not [name for name in attrs if name.startswith("on")]
    assert "url(" not in page and "@import" not in page and "SECRET" not in page
    assert EVIL in parsed.text
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


def test_every_picture_is_inlined_small_and_described(tmp_path: Path) -> None:
    parsed = parse(render(an_outcome(tmp_path)))
    images = [attrs for tag, attrs in parsed.tags if tag == "img"]
    sizes = []
    for attrs in images:
        data = base64.b64decode((attrs["src"] or "").partition(";base64,")[2])
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            sizes.append(image.size)
        assert attrs["alt"] and attrs["width"] == str(sizes[-1][0])
    assert sizes == [(72, 72), (336, 224)]
    assert images[0].get("class") == "crisp" and "class" not in images[1]
    assert "no picture kept" in parsed.text


def test_unreadable_pictures_are_left_out(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert picture(broken) is None
    assert picture(tmp_path / "missing.png") is None
    assert picture(None) is None


@pytest.mark.parametrize(
    ("value", "p", "better", "word"),
    [
        (-1.0, 0.01, "lower", "better"),
        (1.0, 0.01, "lower", "worse"),
        (1.0, 0.01, "higher", "better"),
        (-1.0, 0.01, "higher", "worse"),
        (1.0, 0.01, "neutral", "changed"),
        (1.0, 0.2, "higher", "not significant"),
        (0.0, 0.01, "higher", "not significant"),
        (1.0, float("nan"), "higher", "not significant"),
    ],
)
def test_verdicts(tmp_path: Path, value: float, p: float, better: str, word: str) -> None:
    delta = a_delta(value, p, better)
    assert verdict(delta) == word
    parsed = parse(render(an_outcome(tmp_path, (delta,))))
    classes = [attrs.get("class") or "" for tag, attrs in parsed.tags if tag == "tr"]
    assert word.replace(" ", "-") in classes


def test_the_headline_says_what_changed(tmp_path: Path) -> None:
    deltas = (
        a_delta(-1, 0.01, "lower", "CHAIRi"),
        a_delta(-2, 0.01, "higher", "recall"),
        a_delta(0.1, 0.6, "higher", "accuracy"),
        a_delta(-3, 0.001, "neutral", "length"),
    )
    text = parse(render(an_outcome(tmp_path, deltas))).text
    assert "1 of 3 scores is better and 1 is worse; the other 1 did not change" in text
    assert "CHAIRi fell by 1.0 (better)" in text
    assert "recall fell by 2.0 (worse)" in text
    assert "length fell by 3.0." in text
    assert change(deltas[3]) == "length fell by 3.0"
    unchanged = parse(render(an_outcome(tmp_path, deltas[2:3]))).text
    assert "Alignment changed no score significantly." in unchanged


def test_missing_parts_leave_a_page(tmp_path: Path) -> None:
    full = an_outcome(tmp_path, (a_delta(1, 0.01, "higher"),))
    report = full.report
    texts = {}
    for name, outcome in {
        "no deltas": replace(full, report=replace(report, deltas=(), scores=report.scores[:1])),
        "pairs only": Outcome(full.plan, replace(report, deltas=(), scores=()), full.examples),
        "no pairs": Outcome(full.plan, replace(report, deltas=(), scores=(), pairs=None)),
        "none kept": Outcome(
            full.plan, replace(report, deltas=(), scores=(), pairs=PairCounts(0, 0, {}))
        ),
        "bare": Outcome(
            Plan("k" * 64, "n", 0, {}, (), (), tmp_path), Report("k" * 64, "n", 0, "d", ())
        ),
    }.items():
        texts[name] = parse(render(outcome)).text
    assert "The base model was measured; there is nothing to compare it with." in texts["no deltas"]
    assert "6 of 10 samples gave a preference pair; nothing was measured." in texts["pairs only"]
    assert "stopped before preference pairs were made" in texts["no pairs"]
    assert "python -m seva_exp" in texts["bare"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 1e9, -1e-9])
def test_odd_numbers_make_no_odd_page(tmp_path: Path, value: float) -> None:
    outcome = an_outcome(tmp_path, (a_delta(value, 0.01, "higher"), a_delta(1, 0.5, "neutral")))
    rows = ({"step": 1, "loss": value}, {"step": 2, "loss": None}, {"loss": 1.0})
    page = render(replace(outcome, training=rows))
    parse(page)
    assert not re.search(r'="(nan|-?inf)', page)


def test_the_command_can_be_pasted_into_a_shell() -> None:
    assert command(("+aug=[a,b]", "name=a b", "x.token=s")) == (
        "python -m seva_exp '+aug=[a,b]' 'name=a b' 'x.token=***'"
    )


def test_differing_words_are_marked() -> None:
    assert marked("a red <b>", ("a blue <b>",)) == "a <mark>red</mark> &lt;b&gt;"
    assert marked("one two three", ("one 2 3",)) == "one <mark>two three</mark>"
    assert marked("same", ("same",)) == "same"
    assert marked("", ("x",)) == ""


def test_numbers_read_well() -> None:
    assert number(-0.04, 1) == "0.0" and number(-1.26, 1, sign=True) == "\N{MINUS SIGN}1.3"
    assert number(2, 1, sign=True) == "+2.0" and number(float("nan"), 1) == "n/a"
    assert p_value(0.0) == "p < 0.001" and p_value(0.021) == "p = 0.021"
    assert label("pope_popular", "accuracy") == "pope popular accuracy"
    assert label("all", "recall") == "recall" and label("chair", "chair_i") == "chair_i"
    assert share(1, 1000) == "< 1 %" and share(0, 10) == "0 %"
