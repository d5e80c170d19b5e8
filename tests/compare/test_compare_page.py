"""``compare.html`` as a file: whole, self-contained, safe, and of bounded size."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from seva_exp.compare.changed import MOST
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.evidence import Evidence
from seva_exp.compare.files import write_comparison
from seva_exp.compare.page import SHOWN, render, shown
from seva_exp.compare.runs import ComparedRun
from seva_exp.compare.samples import SAMPLES, views_of
from seva_exp.compare.tables import latex, markdown, to_csv
from seva_exp.compare.training import POINTS, thinned

PREDICTIONS = "evaluate.aligned.shapes/predictions.jsonl"
VOID = {"meta", "img", "br", "input", "line", "rect", "circle", "path", "wbr"}
LIMIT = 3_000_000
"""Bytes of a page with 50 runs; a megabyte of it is the plotting library."""


class Page(HTMLParser):
    """Tags, cells and texts; every tag is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data: dict = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["script"]:
            self.text += data
        elif self.tags[-1][1].get("id") == "data":
            self.data = json.loads(data)

    def count(self, tag: str, **attributes: str) -> int:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return sum(t == tag and wanted.items() <= attrs.items() for t, attrs in self.tags)


def page_of(folders: list[Path], against: Path | None = None) -> Page:
    out = folders[0].parent / "compare.html"
    write_comparison(folders, out, [against] if against else [])
    return Page(out.read_text(encoding="utf-8"))


def test_the_page_is_self_contained_and_escaped(make_run):
    evil = "</script><img src=x onerror=alert(1)>"
    runs = [make_run("a", said=evil, dpo={"beta": 0.1}), make_run("b", dpo={"beta": evil})]
    page = page_of(runs)
    assert page.data["models"][2]["fields"] == {"beta": evil}
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        assert (attrs.get("src") or "data:").startswith("data:"), (tag, attrs)
        assert not re.match(r"\w+:|//", attrs.get("href") or ""), "links stay in the folder"
        assert not [name for name in attrs if name.startswith("on")]
    assert evil in page.text
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'")


def test_a_run_of_another_version_is_shown_with_its_scores(make_run):
    """Its benchmark has a field that is not known here: no pictures, no paired changes of it."""
    old = make_run("old", benchmark={"shapes": {"kind": "shapes", "pictures": 9}}, right=0.9)
    page = page_of([old, make_run("new")], against=old)
    assert page.count("a", href="old/report.html") == 1
    assert {row[0] for row in page.data["scores"]} == {0, 1, 2}
    assert {row[0] for row in page.data["scores"] if row[5] is not None} == {2}, "the new one"
    assert page_of([old]).data["columns"], "and with its base"


def test_a_link_leads_to_a_folder_of_any_name(make_run):
    assert page_of([make_run("a#1 %20?x=1")]).count("a", href="a%231%20%2520%3Fx=1/report.html")


def test_rows_columns_and_links(make_run):
    page = page_of([make_run("a"), make_run("b", aug={"byol": {"kind": "byol"}}, seed=1)])
    assert page.count("tr", class_="base") == 1
    assert page.count("a", href="a/report.html") == page.count("a", href="b/report.html") == 1
    heads = [attrs for tag, attrs in page.tags if tag == "th" and attrs.get("aria-sort")]
    metrics = [head for head in heads if "data-column" in head]
    assert len(heads) - len(metrics) == 1 + len({"aug", "seed"})
    hidden = ["hidden" in head for head in metrics]
    assert hidden == [False, False, True, False], "yes_rate has no good direction"
    assert [model["label"] for model in page.data["models"]] == [
        "base model",
        "aug=moco, seed=0",
        "aug=byol, seed=1",
    ]


def test_the_chosen_run_is_named(make_run):
    one, other = make_run("a"), make_run("b", dpo={"beta": 0.5})
    page = page_of([one, other], against=one)
    assert "Below each score its change from the chosen run" in page.text
    assert [row[5] for row in page.data["scores"] if row[0] == 1] == [None] * len(
        page.data["columns"]
    )


def test_a_single_run_and_one_that_measured_nothing(make_run):
    assert "One run" in page_of([make_run("a")]).text
    bare = make_run("bare")
    report = json.loads((bare / "report.json").read_text())
    (bare / "report.json").write_text(json.dumps(report | {"scores": [], "deltas": []}))
    (bare / "metrics.jsonl").unlink()
    page = page_of([bare])
    assert "None of these runs measured anything." in page.text
    assert page.data["columns"] == [] and page.count("img") > 0, "its samples are shown"


def test_nothing_is_written_where_no_run_is_finished(tmp_path):
    comparison, left_out = write_comparison([tmp_path], tmp_path / "compare.html")
    assert not comparison.runs and len(left_out) == 1
    assert not list(tmp_path.iterdir())


def test_what_is_left_out_is_told_on_the_page(make_run):
    unfinished = make_run("b")
    (unfinished / "report.json").unlink()
    page = page_of([make_run("a"), unfinished])
    assert "1 run is left out" in page.text and "this run is not finished" in page.text


def test_variants_of_several_seeds_stand_together_first(make_run):
    """With their mean changes; a page of one seed each has no such table."""
    runs = [
        make_run(f"x_beta={beta}_seed={seed}", seed=seed, right=0.5 + beta, dpo={"beta": beta})
        for beta in (0.1, 0.4)
        for seed in (0, 1)
    ]
    page = page_of(runs)
    assert page.count("table", class_="variants") == 1
    table = page.text.split("Runs that differ in nothing but the seed")[1].split(
        "Below each score"
    )[0]
    assert table.count("beta=0.1") == table.count("beta=0.4") == 1 and "seed=" not in table
    assert table.count(" ± ") >= 4
    assert page_of(runs[::2]).count("table", class_="variants") == 0


def test_numbers_are_axes_and_two_fields_a_heat_map(make_run):
    def run(i: int, beta: float, step: int) -> Path:
        aug = {"noise": {"kind": "diffusion_noise", "step": step}}
        return make_run(f"r{i}", seed=i % 2, aug=aug, dpo={"beta": beta})

    grid = [(beta, step) for beta in (0.1, 0.5) for step in (300, 800) for _ in range(2)]
    data = page_of([run(i, *cell) for i, cell in enumerate(grid)]).data
    assert data["axes"] == data["heat"] == ["step", "beta"]
    assert data["training"]["options"] == ["loss"] and len(data["training"]["series"]) == 8


def test_a_training_that_runs_share_is_one_curve(make_run):
    """One curve would hide the other, and the legend show what cannot be seen."""
    runs = [
        make_run("a", align="k", dpo={"beta": 0.1}),
        make_run("b", align="k", dpo={"beta": 0.5}),
        make_run("c", align="other", dpo={"beta": 0.5}),
    ]
    data = page_of(runs).data
    assert [data["models"][i]["base"] for i in range(4)] == [True, False, False, False]
    assert [one["models"] for one in data["training"]["series"]] == [[1, 2], [3]]
    assert [len(one["points"]) for one in data["training"]["series"]] == [8, 8]


def test_a_shared_training_is_found_under_each_name_that_it_has(make_run):
    one, several = make_run("a", align="k"), make_run("b", align="k", method={"rounds": 2})
    for file in (several / "report.json", several / "metrics.jsonl"):
        file.write_text(file.read_text().replace('"align"', '"align.round1"'))
    training = page_of([one, several]).data["training"]
    assert training["options"] == ["align: loss", "align.round1: loss"]
    assert [curve["models"] for curve in training["series"]] == [[1], [2]]


def test_what_is_held_out_has_a_curve(make_run):
    run = make_run("a", align="k")
    row = {"stage": "align", "step": 8, "held_out/loss": 0.6}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert page_of([run]).data["training"]["options"] == ["loss", "held-out loss"]


def test_the_same_sample_is_shown_across_views_and_settings(make_run):
    runs = [
        make_run("a", said="a blue ring"),
        make_run("b", said="a blue ring", dpo={"beta": 0.5}),
        make_run("c", said="a red <ring>", aug={"byol": {"kind": "byol"}}),
    ]
    views = views_of([ComparedRun.read(run) for run in runs])
    assert [(one.view, len(one.runs)) for one in views] == [("clean", 3), ("moco", 2), ("byol", 1)]
    page = page_of(runs)
    cards = [attrs["aria-label"] for tag, attrs in page.tags if tag == "article"]
    assert sum(str(label).startswith("Sample") for label in cards) == 2 <= SAMPLES
    pictures = [attrs["alt"] or "" for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 2 * 3 and len(set(pictures)) == 6
    assert page.count("mark") > 0


def test_all_that_is_written_comes_from_one_value(make_run):
    """The renderers read no file of a run: with the folders gone they write the same."""
    folders = [make_run("a", right=0.7), make_run("b", 1, 0.9), make_run("c", dpo={"beta": 0.5})]
    runs = [ComparedRun.read(folder) for folder in folders]
    comparison = Comparison.of(runs)
    evidence, out = Evidence.of(comparison), folders[0].parent / "compare.html"

    def written() -> list[str]:
        page = render(comparison, evidence, (), out)
        return [page, to_csv(comparison), markdown(comparison), latex(comparison)]

    before = written()
    for folder in folders:
        shutil.rmtree(folder)
    assert written() == before
    page, table, text, tex = before
    change = comparison.variants[0].cells[comparison.columns[0]].deltas[0]
    assert f"+{change:.1f}" in page and f"{change}" in table
    assert f"+{sum(comparison.variants[0].cells[comparison.columns[0]].deltas) / 2:.1f} ±" in text
    assert tex.count("tabular") == 2


def test_where_links_are_text_files_the_page_is_the_same(make_run):
    runs = [make_run("a", right=0.7), make_run("b", right=0.9, dpo={"beta": 0.5})]
    out = runs[0].parent / "compare.html"
    write_comparison(runs, out, runs[:1])
    before = out.read_text(encoding="utf-8")
    assert 'aria-label="Sample s0"' in before and "✓ fixed" in before
    for run in runs:
        for folder in [path for path in run.iterdir() if path.is_dir()]:
            artifact = run.parent.parent / "store" / run.name / folder.name
            artifact.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(artifact)
            folder.write_text(f"{artifact}\n")
    write_comparison(runs, out, runs[:1])
    assert out.read_text(encoding="utf-8") == before


def test_fixed_and_broken_answers_are_counted_and_some_are_shown(make_run):
    one, other = make_run("a", right=0.7), make_run("b", right=0.9, dpo={"beta": 0.5})
    said = [
        [row["score"] for row in map(json.loads, (run / PREDICTIONS).open())]
        for run in (one, other)
    ]
    fixed = sum(after > before for before, after in zip(*said, strict=True))
    broken = sum(after < before for before, after in zip(*said, strict=True))
    page = page_of([one, other], against=one)
    assert f"shapes: {fixed} fixed, {broken} broken, {120 - fixed - broken} same" in page.text
    assert page.text.count("✓ fixed") == page.text.count("✕ broken") == MOST
    (other / PREDICTIONS).unlink()
    assert "fixed" not in page_of([one, other], against=one).text


def test_runs_that_share_their_pairs_stand_together(make_run):
    page = page_of(
        [
            make_run("a"),
            make_run("b", dpo={"beta": 0.5}),
            make_run("c", dropped=7, dpo={"beta": 0.9}),
        ]
    )
    assert page.count("div", class_="card pair-row") == 2


def test_fifty_runs_stay_small_and_fast(make_run):
    runs = [make_run(f"r{i:02}", right=0.6 + i / 200, dpo={"beta": i / 100}) for i in range(50)]
    out = runs[0].parent / "compare.html"
    write_comparison(runs, out)
    assert out.stat().st_size < LIMIT
    assert Page(out.read_text(encoding="utf-8")).count("tr", role="row") == 52


@pytest.mark.parametrize("count", [1, POINTS, POINTS + 1, 10_000])
def test_a_thinned_curve_keeps_its_ends(count):
    points = [(float(i), 0.0) for i in range(count)]
    kept = thinned(points)
    assert len(kept) == min(count, POINTS)
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_the_metrics_shown_at_first_come_from_every_family(make_run):
    from seva_exp.compare.deltas import Column

    names = [("pope", "accuracy"), ("pope", "f1"), ("vqa", "mean"), ("chair", "chair_i")]
    found = [Column("b", "p", split, name, "higher") for split, name in names]
    found.insert(0, Column("b", "p", "chair", "words", "neutral"))
    assert shown(found * 1) == {1, 2, 3, 4}
    many = [Column(f"b{i}", "p", "all", "accuracy", "higher") for i in range(40)]
    assert len(shown(many)) == SHOWN


def test_every_benchmark_of_a_suite_is_shown_at_first():
    from seva_exp.compare.deltas import Column

    splits = ["all", "2D", "3D", "ADE20K", "COCO", "Omni3D", "Count"]
    found = [Column("cv_bench", "p", split, "accuracy", "higher") for split in splits]
    found += [Column("mmvp", "p", "all", name, "higher") for name in ("pair_accuracy", "accuracy")]
    found += [Column(name, "p", "all", "accuracy", "higher") for name in ("mmstar", "naturalbench")]
    assert shown(found) == {0, 7, 9, 10, 1, 2}
