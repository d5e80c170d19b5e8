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

from seva_exp.core.records import (
    Delta,
    Finding,
    ImageRef,
    Pair,
    PairCounts,
    Report,
    Score,
    StageResult,
)
from seva_exp.inputs.images import open_image
from seva_exp.report.gallery import marked, picture
from seva_exp.report.html import FILES, HtmlReport, command, curves, made_with, render
from seva_exp.report.pipeline import pipeline
from seva_exp.report.significance import change, label, needed, number, p_value, share, verdict
from seva_exp.runs.events import Outcome, PairExample, Plan, PlannedStage

EVIL = "<script>alert(1)</script> \"quoted\" 'x' & </p>"
VOID = {"meta", "img", "br", "hr", "link", "input", "line", "rect", "circle", "polyline", "path"}


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
        if self.open[-1:] != ["style"]:
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
    example = PairExample(pair, small, {EVIL: large})
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
            inline = (attrs.get(name) or "data:").startswith("data:")
            assert inline or (name == "href" and attrs[name] in FILES)
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
    assert "no picture" in parsed.text


def test_unreadable_pictures_are_left_out(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert picture(broken) is None
    assert picture(tmp_path / "missing.png") is None
    assert picture(None) is None


def test_a_picture_is_shown_as_the_model_saw_it(tmp_path: Path) -> None:
    deep, turned = tmp_path / "deep.png", tmp_path / "turned.jpg"
    Image.new("I;16", (40, 30), 20000).save(deep)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30), "red").save(turned, exif=exif)
    for path in (deep, turned):
        shown = picture(path)
        assert shown is not None
        with Image.open(io.BytesIO(base64.b64decode(shown["uri"].split(",")[1]))) as image:
            assert image.tobytes() == open_image(path).tobytes()
            assert image.size == open_image(path).size


def test_a_run_without_pairs_says_so_and_shows_the_base_scores(tmp_path: Path) -> None:
    full = an_outcome(tmp_path, (a_delta(1, 0.01, "higher"),))
    report = replace(
        full.report,
        stages=full.report.stages[:1],
        pairs=PairCounts(10, 0, {"equal": 10}),
        scores=full.report.scores[:1],
        deltas=(),
    )
    outcome = replace(full, report=report, examples=(), training=())
    page = HtmlReport()
    page.planned(full.plan)
    for name in ("align", "evaluate.aligned.shapes"):
        page.stage_skipped(PlannedStage(name, "cd" * 32, False), f"no pair is left {EVIL}")
    page.finished(outcome)
    text = parse((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "No pair was left: nothing was aligned; only the base model was measured." in text
    assert text.count(f"No pair is left {EVIL}.") == 1
    assert "20.0" in text and "Aligned" not in text and text.count("skipped") == 2
    page.planned(full.plan)
    page.finished(outcome)
    assert "skipped" not in parse((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_an_unclear_change_tells_how_many_groups_would_show_it(tmp_path: Path) -> None:
    def told(**fields) -> str:
        delta = replace(a_delta(-0.4, 0.3, "lower"), groups=400, **fields)
        assert needed(replace(delta, p=0.01)) == "", "significant: nothing is needed"
        return needed(delta)

    assert told(groups_needed=3391) == "groups needed ≈ 3,400 (has 400)"
    assert told(groups_needed=812345) == "groups needed ≈ 820,000 (has 400)"
    assert told(groups_needed=97) == "groups needed ≈ 97 (has 400)"
    assert told(groups_needed=None) == ""
    unclear = replace(a_delta(-0.4, 0.3, "lower"), groups_needed=3391, mcnemar_p=0.25)
    text = parse(render(an_outcome(tmp_path, (unclear,)))).text
    assert "groups needed ≈ 3,400" in text
    assert "McNemar p = 0.25" in text
    assert "no evidence" in text
    clear = parse(render(an_outcome(tmp_path, (a_delta(-1, 0.01, "lower"),)))).text
    assert "groups needed" not in clear
    assert "McNemar" not in clear


def test_what_was_left_out_is_counted_and_named(tmp_path: Path) -> None:
    lines = [f"img{i:02}.png: truncated or damaged ({EVIL})" for i in range(20)]
    samples = {
        "samples": 10,
        "not_drawn": 0,
        "unusable": {"empty file": 2, "truncated or damaged": 23},
        "left_out": lines,
    }
    outcome = an_outcome(tmp_path)
    report = replace(
        outcome.report, stages=(StageResult("samples", "k", False, 1.0), *outcome.report.stages)
    )
    metrics = {"samples": samples}
    text = parse(render(replace(outcome, report=report, stage_metrics=metrics))).text
    assert "25 files or rows could not be used" in text
    assert "truncated or damaged 23, empty file 2." in text
    assert "Which ones (first 20 of 25)" in text
    assert all(text.count(line) == 1 for line in lines)  # in the list, not in the stage's notes
    nothing = {"samples": {**samples, "unusable": {}, "left_out": []}}
    assert "could not be used" not in parse(render(replace(outcome, stage_metrics=nothing))).text


def test_examples_say_of_how_many_pairs_they_are_the_first(tmp_path: Path) -> None:
    outcome = an_outcome(tmp_path)
    assert "These are the first 1 of 6 pairs." in parse(render(outcome)).text
    all_shown = replace(outcome, report=replace(outcome.report, pairs=PairCounts(1, 1, {})))
    assert "These are the first" not in parse(render(all_shown)).text


def test_curves_are_of_the_names_that_trl_logs() -> None:
    row = {"step": 1, "loss": 0.69, "rewards/margins": 0.0, "rewards/accuracies": 0.5}
    assert [c["name"] for c in curves([row])] == ["loss", "rewards/margins", "rewards/accuracies"]
    assert curves([{"step": 1, "margin": 0.0, "loss": True}, {"loss": float("nan")}]) == []


def test_what_is_held_out_is_a_second_line(tmp_path: Path) -> None:
    rows = [{"step": n, "loss": 0.69 / n} for n in (1, 2, 3)]
    [alone] = curves(rows)
    assert not alone["held_out"] and "held-out" not in alone["svg"]
    rows[0]["held_out/loss"], rows[2]["held_out/loss"] = 0.7, 0.5
    [both] = curves(rows)
    assert both["held_out"] and "held out: from 0.7 to 0.5" in both["svg"]
    points = re.search(r'class="line held-out" points="([^"]*)"', both["svg"])
    assert points and len(points[1].split()) == 2
    page = render(replace(an_outcome(tmp_path), training=rows))
    assert "Dashed: the preferences that are held out" in page
    assert "Dashed" not in render(an_outcome(tmp_path))


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


def test_a_gain_at_a_price_is_told_as_such(tmp_path: Path) -> None:
    bought = replace(a_delta(-1, 0.01, "lower", "CHAIRi"), price=("recall", "words"))
    deltas = (bought, a_delta(-2, 0.01, "higher", "recall"), a_delta(1, 0.01, "higher", "f1"))
    parsed = parse(render(an_outcome(tmp_path, deltas)))
    assert "1 of 3 scores is better, 1 is better at a price and 1 is worse." in parsed.text
    assert "CHAIRi fell by 1.0 (better, at the price of recall and words)" in parsed.text
    assert "✓ better, at the price" not in parsed.text
    classes = [attrs.get("class") or "" for tag, attrs in parsed.tags if tag == "tr"]
    assert "at-a-price" in classes
    alone = parse(render(an_outcome(tmp_path, deltas[:1]))).text
    assert "After training, 1 of 1 score is better at a price." in alone


def test_a_result_that_is_none_is_the_headline_and_every_finding_is_told(tmp_path: Path) -> None:
    found = (
        Finding(EVIL, "empty_answers", f"3 of 9 answers are {EVIL}"),
        Finding("align", "adapter_unchanged", "training changed nothing", True),
    )
    outcome = an_outcome(tmp_path, (a_delta(-1, 0.01, "lower"),))
    parsed = parse(render(replace(outcome, report=replace(outcome.report, findings=found))))
    assert "There is no result of align: training changed nothing." in parsed.text
    assert f"{EVIL}: 3 of 9 answers are {EVIL}." in parsed.text
    assert "align: training changed nothing; there is no result." in parsed.text
    assert not [tag for tag, _ in parsed.tags if tag == "script"]
    assert "There is no result" not in parse(render(outcome)).text


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
    assert "Training changed no score significantly." in unchanged


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


def test_the_pipeline_is_drawn_with_what_each_stage_reads(tmp_path: Path) -> None:
    outcome = an_outcome(tmp_path)
    planned = (
        PlannedStage("pairs", "ab" * 32, True),
        PlannedStage("align", "cd" * 32, False, inputs=("pairs",)),
        PlannedStage("evaluate.aligned.shapes", "ef" * 32, False, inputs=("align",)),
        PlannedStage("compare.shapes", "01" * 32, False, inputs=("pairs", "gone")),
    )
    outcome = replace(outcome, plan=replace(outcome.plan, stages=planned))
    drawn = pipeline(outcome, {"evaluate.aligned.shapes": "no pair", "compare.shapes": "no pair"})
    assert [(row["name"], row["result"]) for row in drawn["rows"]] == [
        ("pairs", "cached"),
        ("align", "computed"),
        ("evaluate.aligned.shapes", "skipped"),
        ("compare.shapes", "skipped"),
    ]
    assert [row["share"] for row in drawn["rows"]] == [2.7, 100, 0, 0]
    assert drawn["svg"].count('class="edge"') == 3, "an input of no stage here is not drawn"
    assert drawn["svg"].count('class="node') == 4
    assert "1 min 15 s" in parse(render(outcome)).text


def test_the_page_links_to_the_files_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    links = [attrs["href"] for tag, attrs in parse(render(an_outcome(tmp_path))).tags if tag == "a"]
    assert links == ["report.json"]


def test_device_commit_and_versions_stand_on_the_page(tmp_path: Path) -> None:
    environment = {"device": "cpu", "commit": "abc", "packages": {"torch": "2.13", "x": "1"}}
    outcome = replace(an_outcome(tmp_path), environment=environment)
    assert made_with(environment) == [("device", "cpu"), ("commit", "abc"), ("torch", "2.13")]
    assert "The whole environment" in parse(render(outcome)).text
