"""What counts as changed: against each base or a chosen run, paired, corrected for their number."""

from __future__ import annotations

import json

import pytest

from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.benchmarks.statistics import deltas, holm
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.evidence import Evidence
from seva_exp.compare.page import render
from seva_exp.compare.runs import ComparedRun
from seva_exp.compare.tables import markdown


def compared(folders, against=None):
    runs = [ComparedRun.read(folder) for folder in folders]
    return Comparison.of(runs, [ComparedRun.read(against)] if against else [])


def accuracy(comparison):
    return next(c for c in comparison.columns if (c.split, c.metric) == ("pope", "accuracy"))


def test_without_a_choice_every_run_is_compared_with_its_base(make_run):
    found = compared([make_run("a"), make_run("b", right=0.95, aug={"byol": {"kind": "byol"}})])
    assert found.labels == ["base model", "aug=moco", "aug=byol"]
    column = accuracy(found)
    assert found.changes[0] == {}
    changed = [found.changes[i][column] for i in (1, 2)]
    own = [
        next(
            d
            for d in found.models[i].run.report.deltas
            if (d.split, d.metric) == ("pope", "accuracy")
        )
        for i in (1, 2)
    ]
    assert [change.delta for change in changed] == own
    every = [(i, c) for i, row in enumerate(found.changes) for c in row]
    corrected = holm([found.changes[i][c].delta.p for i, c in every])
    assert [found.changes[i][c].corrected for i, c in every] == corrected


def test_a_chosen_run_is_compared_by_the_paired_bootstrap_of_the_same_questions(make_run):
    one = make_run("a", right=0.6)
    other = make_run("b", right=0.95, aug={"byol": {"kind": "byol"}})
    found = compared([one, other], against=one)
    assert found.references.models == (found.models[1],)
    assert found.changes[1] == {}, "the chosen run has nothing to be compared with"
    said = [found.models[i].predictions("shapes") for i in (1, 2)]
    expected = deltas(ShapesBenchmark().metrics, *said, benchmark="shapes")
    delta = found.changes[2][accuracy(found)].delta
    assert delta == next(d for d in expected if (d.split, d.metric) == ("pope", "accuracy"))
    assert delta.value > 10


def test_other_questions_or_no_answers_are_not_compared(make_run):
    one = make_run("a")
    fewer = make_run("b", questions=40, dpo={"beta": 0.5})
    gone = make_run("c", dpo={"beta": 0.7})
    (gone / "evaluate.aligned.shapes" / "predictions.jsonl").unlink()
    found = compared([one, fewer, gone], against=one)
    of = {model.run.folder.name: i for i, model in enumerate(found.models) if model.model != "base"}
    assert found.changes[of["b"]] == {} and found.changes[of["c"]] == {}


def test_two_protocols_are_never_one_column(make_run):
    found = compared([make_run("a"), make_run("b", protocol="another", dpo={"beta": 0.5})])
    protocols = {column.protocol for column in found.columns}
    assert protocols == {"seva_exp-shapes-v1", "another"}
    for model in found.models:
        assert len({column.protocol for column in model.scores}) == 1


def test_an_insignificant_p_stays_so_after_the_correction(make_run):
    folders = [make_run(f"r{i}", right=0.7, dpo={"beta": i}) for i in range(6)]
    found = compared(folders)
    column = accuracy(found)
    pairs = [(row[column].delta.p, row[column].corrected) for row in found.changes if column in row]
    assert len(pairs) == 6 and all(corrected >= p for p, corrected in pairs)
    assert any(corrected > 5 * p for p, corrected in pairs)


def test_each_protocol_is_a_family_of_its_own(make_run):
    """Of three runs under one protocol and two under another p is corrected for its own family."""
    runs = [("p1", 0.62), ("p1", 0.66), ("p1", 0.7), ("p2", 0.68), ("p2", 0.72)]
    found = compared(
        [
            make_run(f"r{i}", right=right, protocol=protocol, dpo={"beta": i})
            for i, (protocol, right) in enumerate(runs)
        ]
    )
    for protocol, count in (("p1", 3), ("p2", 2)):
        cells = [
            row[column] for row in found.changes for column in row if column.protocol == protocol
        ]
        metrics = len({c for c in found.columns if c.protocol == protocol})
        assert {cell.tests for cell in cells} == {count * metrics} == {len(cells)}
        assert [c.corrected for c in cells] == holm([c.delta.p for c in cells])
    every = [row[column] for row in found.changes for column in row]
    assert holm([c.delta.p for c in every]) != [c.corrected for c in every], "a larger family"


def test_seeds_of_a_variant_are_one_test_of_the_page(make_run):
    """Its p is the largest of the seeds', and 1 where they differ in direction; the tables beside
    the page mark what the page marks."""
    folders = [make_run(f"r{seed}", seed, right) for seed, right in enumerate((0.72, 0.8, 0.95))]
    folders.append(make_run("odd", 0, 0.3, dpo={"beta": 0.5}))
    folders.append(make_run("odd2", 1, 0.9, dpo={"beta": 0.5}))
    found = compared(folders)
    column = accuracy(found)
    mine = [row[column] for row in found.changes if column in row]
    assert {change.tests for change in mine} == {2 * len(found.columns)}
    first, odd = mine[:3], mine[3:]
    joint = {
        (v, c): 1.0
        if len({row[c].delta.value > 0 for row in rows}) > 1
        else max(row[c].delta.p for row in rows)
        for v, rows in enumerate((found.changes[1:4], found.changes[4:]))
        for c in found.columns
    }
    corrected = dict(zip(joint, holm(list(joint.values())), strict=True))
    assert {change.corrected for change in first} == {corrected[0, column]}
    assert {change.corrected for change in odd} == {1.0}, "one fell, one rose"
    assert all(change.delta.p < 0.05 for change in odd)
    (line,) = (line for line in markdown(found).splitlines() if "pope accuracy" in line)
    marks = ["*" in cell for cell in line.split("|")[3:5]]
    assert marks == [corrected[0, column] < 0.05, False]
    assert f"for {2 * len(found.columns)} changes" in markdown(found)


@pytest.mark.parametrize("fewer", ["", "second"])
def test_of_two_runs_of_one_seed_one_counts(make_run, fewer):
    """As in the tables: the last of those that measured most; both rows show its test."""
    folders = {"first": make_run("first", right=0.62), "second": make_run("second", right=0.9)}
    if fewer:
        report = folders[fewer] / "report.json"
        row = json.loads(report.read_text())
        report.write_text(json.dumps(row | {"scores": row["scores"][:-1]}))
    found = compared(folders.values())
    column = accuracy(found)
    first, second = (row[column] for row in found.changes if column in row)
    assert first.delta != second.delta
    assert first.corrected == second.corrected
    counts = found.changes[1 if fewer else 2]
    family = holm([row.delta.p for row in counts.values()])
    assert first.corrected == family[list(counts).index(column)]


def test_the_chosen_run_is_called_as_its_row_and_its_column_are(make_run, tmp_path):
    """By the name that a person gave it; with its seed where there are several."""
    folders = [make_run(name, seed, dpo={"beta": b}) for name, seed, b in NAMED]
    found = compared(folders, against=folders[0])
    head = next(line for line in markdown(found).splitlines() if line.startswith("| metric"))
    assert head == "| metric | first (seed 0) | second (seed 1) |"
    page = render(found, Evidence.of(found), [], tmp_path / "compare.html")
    assert "<dt>Compared with</dt><dd>first</dd>" in page
    one_seed = compared([folders[0], make_run("third", dpo={"beta": 0.7})], against=folders[0])
    assert "| metric | first | third |" in markdown(one_seed)


NAMED = [("first", 0, 0.1), ("second", 1, 0.5)]
