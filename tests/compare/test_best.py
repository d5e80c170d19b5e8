"""The best variant is named with its change, and whether it is more than the luck of many."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seva_exp.compare.__main__ import main
from seva_exp.compare.best import best
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.runs import ComparedRun

ACCURACY = ["pope/accuracy"]


def compared(folders) -> Comparison:
    return Comparison.of(ComparedRun.read_all(folders)[0])


def test_the_best_of_three_is_significantly_better_than_a_second_that_is_far_behind(make_run):
    folders = [
        make_run("low", right=0.5, dpo={"beta": 0.5}),
        make_run("high", right=0.98, dpo={"beta": 0.1}),
        make_run("mid", right=0.7, dpo={"beta": 0.2}),
    ]
    c = compared(folders)
    (found,) = best(c, ACCURACY)
    report = ComparedRun.read(folders[1]).report
    (score,) = (
        s for s in report.scores if (s.model, s.split, s.metric) == ("aligned", "pope", "accuracy")
    )
    (delta,) = (d for d in report.deltas if (d.split, d.metric) == ("pope", "accuracy"))
    assert found.value == f"{score.value:.1f}"
    assert found.change == (f"{delta.value:+.1f}, 95 % from {delta.low:+.1f} to {delta.high:+.1f}")
    assert found.tests == 2 and found.p < 0.05
    assert (found.variant.title, found.second.title) == ("high", "mid")
    assert found.text.startswith("best shapes")
    assert "; significantly better than the second, mid" in found.text


def test_two_that_answer_alike_are_not_told_apart(make_run):
    folders = [make_run(name, right=0.8, dpo={"beta": b}) for name, b in (("a", 0.1), ("b", 0.2))]
    (found,) = best(compared(folders), ACCURACY)
    assert found.p > 0.05 and "; not significantly better than the second, a (" in found.text


def test_the_best_of_two_that_score_the_same_is_called_equal(make_run):
    folders = [make_run(name, right=1.0, dpo={"beta": b}) for name, b in (("a", 0.1), ("b", 0.2))]
    (found,) = best(compared(folders), ACCURACY)
    assert found.text.endswith(f"; equal to the second, {found.second.title}")


def test_seeds_of_a_variant_stand_together(make_run):
    folders = [
        make_run(f"{name}_seed={seed}", seed, right, dpo={"beta": beta})
        for name, right, beta in (("x", 0.97, 0.1), ("y", 0.6, 0.2))
        for seed in (0, 1)
    ]
    (found,) = best(compared(folders), ACCURACY)
    assert "±" in found.value and "±" in found.change and found.tests == 1
    assert found.p < 0.05 and found.variant.seeds == (0, 1)


def test_a_metric_that_is_better_lower_is_best_where_it_is_lowest(make_run):
    folders = [
        make_run("a", right=0.5, dpo={"beta": 0.5}),
        make_run("b", right=0.98, dpo={"beta": 0.1}),
    ]
    c = compared(folders)
    turned = {column: replace(column, better="lower") for column in c.columns}
    families = [
        replace(one, columns=tuple(turned[column] for column in one.columns)) for one in c.families
    ]
    models = [
        replace(m, scores={turned[column]: score for column, score in m.scores.items()})
        for m in c.models
    ]
    changes = [{turned[column]: delta for column, delta in row.items()} for row in c.changes]
    low = replace(c, families=families, models=models, changes=changes)
    (high,), (least,) = best(c, ACCURACY), best(low, ACCURACY)
    assert (high.variant.title, least.variant.title) == ("b", "a")


def test_one_variant_or_answers_that_are_gone(make_run):
    folders = [make_run("a", dpo={"beta": 0.5}), make_run("b", right=0.95, dpo={"beta": 0.1})]
    assert best(compared(folders[:1])) == []
    (folders[0] / "evaluate.aligned.shapes" / "predictions.jsonl").unlink()
    (found,) = best(compared(folders), ACCURACY)
    assert found.p is None and "not tested against the second" in found.text


@pytest.mark.parametrize("metrics", [[], ["--metrics", "pope/accuracy"]])
def test_the_command_the_page_and_the_markdown_tell_it(make_run, capsys, metrics):
    folders = [make_run("a", dpo={"beta": 0.5}), make_run("b", right=0.95, dpo={"beta": 0.1})]
    out = folders[0].parent / "c.html"
    assert main([*map(str, folders), "--out", str(out), *metrics]) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("best shapes")]
    assert len(lines) == (1 if metrics else 2)
    assert lines[0] in out.with_suffix(".md").read_text()
    assert lines[0].split(";")[0][1:] in out.read_text()


def test_runs_are_named_as_a_list_names_them(make_run, monkeypatch, capsys):
    """``runs ls`` shows names, and what takes runs takes names."""
    folders = [make_run(name, right=0.8, dpo={"beta": b}) for name, b in (("a", 0.1), ("b", 0.2))]
    assert folders[0].parent.name == "runs"
    monkeypatch.chdir(folders[0].parents[1])
    assert main(["a", "b", "--against", "a"]) == 0
    assert "pope accuracy" in capsys.readouterr().out
    assert main(["aa"]) == 2
