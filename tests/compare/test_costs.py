"""What a model took stands beside what it gained."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from seva_exp.compare.__main__ import main
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.costs import costs_of
from seva_exp.compare.files import write_comparison
from seva_exp.compare.runs import ComparedRun
from seva_exp.compare.tables import markdown, to_csv

STAGES = {
    "samples": (1.0, 0, 0),
    "answers.clean": (8.0, 600, 0),
    "answers.moco": (4.0, 600, 0),
    "scores.judge": (2.0, 70, 0),
    "pairs": (0.5, 0, 0),
    "evaluate.base.shapes": (100.0, 0, 0),
    "align.round1": (5.0, 0, 17),
    "evaluate.round1.shapes": (100.0, 0, 0),
    "align.round2": (6.0, 0, 18),
    "judge.aligned.shapes": (100.0, 0, 0),
    "compare.shapes": (100.0, 0, 0),
}
"""Label -> seconds, answers, steps."""


def with_stages(folder: Path, factor: float = 1.0, counted: bool = True) -> Path:
    report = json.loads((folder / "report.json").read_text())
    report["stages"] = [
        {"name": name, "key": f"{folder.name}{name}", "cached": name == "samples"}
        | {"seconds": factor * seconds}
        | ({"answers": answers, "steps": steps} if counted else {})
        for name, (seconds, answers, steps) in STAGES.items()
    ]
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_all_that_made_the_model_counts_and_what_measured_it_does_not(make_run):
    run = ComparedRun.read(with_stages(make_run("a")))
    assert costs_of(run) == {"answers": 1270, "steps": 35, "seconds": 26.5}


def test_a_report_of_before_there_were_counts_has_seconds_alone(make_run):
    run = ComparedRun.read(with_stages(make_run("a"), counted=False))
    assert costs_of(run) == {"seconds": 26.5}
    assert costs_of(ComparedRun.read(make_run("b"))) == {}, "nothing was trained"


def test_tables_have_the_mean_over_seeds_where_it_is_asked_for(make_run, capsys):
    runs = [with_stages(make_run(f"a{seed}", seed), 1 + seed) for seed in (0, 1)]
    out = runs[0].parent / "c.html"
    assert main([*map(str, runs), "--cost", "--metrics", "pope/accuracy", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "| answers |  | 1270 |" in said and "| steps |  | 35 |" in said
    assert "| seconds |  | 40 |" in said, "of 26.5 and 53"
    assert "answers" in out.with_suffix(".tex").read_text()
    assert main([*map(str, runs), "--metrics", "pope/accuracy", "--out", str(out)]) == 0
    assert "| seconds" not in capsys.readouterr().out


def test_the_csv_and_the_page_always_have_them(make_run):
    folders = [with_stages(make_run("a")), make_run("b", dpo={"beta": 0.5})]
    comparison = Comparison.of(ComparedRun.read_all(folders)[0])
    base, first, second = csv.DictReader(io.StringIO(to_csv(comparison)))
    assert [first[f"cost/{name}"] for name in ("answers", "steps", "seconds")] == [
        *("1270", "35", "26.5")
    ]
    assert base["cost/steps"] == second["cost/steps"] == ""
    out = folders[0].parent / "c.html"
    write_comparison(folders, out)
    page = out.read_text()
    assert 'data-label="seconds" data-sort="26.5">26.5</td>' in page
    assert page.count('data-label="answers"') == 3
    bare = [make_run("c")]
    assert "cost/" not in to_csv(Comparison.of(ComparedRun.read_all(bare)[0]))


def test_each_seed_is_compared_with_the_same_seed_of_the_chosen_variant(make_run):
    one = [make_run(f"a{seed}", seed, 0.5 + 0.1 * seed, dpo={"beta": 0.1}) for seed in (0, 1)]
    other = [make_run(f"b{seed}", seed, 0.95, dpo={"beta": 0.5}) for seed in (0, 1)]
    folders = [*other, *one]
    runs = [ComparedRun.read(folder) for folder in folders]
    found = Comparison.of(runs, runs[2:])
    column = next(c for c in found.columns if (c.split, c.metric) == ("pope", "accuracy"))
    alone = [Comparison.of(runs, [runs[2 + seed]]) for seed in (0, 1)]
    for seed in (0, 1):
        i = found.finals[seed]
        assert found.changes[i][column].delta == alone[seed].changes[i][column].delta
        assert found.changes[i] != alone[1 - seed].changes[i]
    assert found.changes[0] == {}, "a base has no seed"
    assert all(found.changes[i] == {} for i in found.finals[2:])
    tests = {change.tests for row in found.changes for change in row.values()}
    assert tests == {len(found.columns)}, "one variant is compared"
    head = next(line for line in markdown(found).splitlines() if "|" in line)
    assert head == "| metric | a0 | b0 |"
    assert found.reference_name == "a0, seed by seed"


@pytest.mark.parametrize(
    ("against", "said"),
    [
        (["a0", "c"], "must differ in their seed and in nothing else"),
        (["a0", "a1"], "none of these runs has the seed 2"),
    ],
)
def test_references_that_are_no_seeds_of_one_variant_are_refused(make_run, capsys, against, said):
    made = {
        "a0": make_run("a0", 0),
        "a1": make_run("a1", 1),
        "c": make_run("c", 1, dpo={"beta": 0.5}),
        "d": make_run("d", 2),
    }
    assert main([str(made["d"]), "--against", *(str(made[name]) for name in against)]) == 2
    assert said in capsys.readouterr().err
