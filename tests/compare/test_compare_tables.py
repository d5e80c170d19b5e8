"""The comparison as text: seeds together, variants apart, protocols never mixed."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from pathlib import Path

import pytest
import yaml

from seva_exp.augment import Moco
from seva_exp.command.job import Ended, Job
from seva_exp.command.sweep import Sweep
from seva_exp.compare.__main__ import main
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.runs import ComparedRun, distinct_names
from seva_exp.compare.tables import latex, markdown, to_csv
from seva_exp.core.errors import InputError
from seva_exp.core.records import Delta, Report, Score
from seva_exp.experiment import Experiment
from seva_exp.training import DpoTraining


def finished(
    folder: Path,
    seed: int,
    change: float,
    beta: float = 0.1,
    protocol: str = "p1",
    p: float = 0.01,
):
    path = folder / f"run-{len(list(folder.iterdir()))}"
    path.mkdir()
    base = 25.0 + seed
    scores = tuple(
        Score(model, "b", "chair", "chair_i", value, value - 1, value + 1, 9, protocol, "lower")
        for model, value in (("base", base), ("aligned", base + change))
    )
    deltas = tuple(
        Delta("b", "chair", "chair_i", value, value - 1, value + 1, chance, "lower", model)
        for model, value, chance in (("aligned", change, p), ("round1", 99.0, 1e-9))
    )
    report = Report("k", f"run_seed={seed}", seed, str(path), (), None, scores, deltas)
    (path / "report.json").write_text(json.dumps(report.to_json()))
    config = {"dpo": {"beta": beta}, "seed": seed, "name": f"n{seed}", "machine": {"runs": "x"}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def rewritten(folder: Path, **fields: object) -> None:
    """Other values in its report."""
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(report | fields))


def table(*folders: Path) -> str:
    return markdown(compared(*folders))


def compared(*folders: Path) -> Comparison:
    return Comparison.of([ComparedRun.read(folder) for folder in folders])


def cells(text: str, tests: bool = False) -> list[str]:
    """The values of the first table's only metric; without the marks, unless ``tests``."""
    _, _, below = text.partition("| --- | --- |\n")
    lines = below.partition("\n\n")[0].splitlines()
    found = [line.strip("| ").split(" | ")[1] for line in lines]
    return found if tests else [re.sub(r" \(?\*\)?$", "", cell) for cell in found]


def test_the_seeds_of_a_variant_are_one_group_with_mean_and_deviation(tmp_path):
    changes = [-2.0, -3.0, -7.0]
    folders = [finished(tmp_path, seed, change) for seed, change in enumerate(changes)]
    spread = f"{statistics.fmean(changes):+.1f} ± {statistics.stdev(changes):.1f}"
    text = table(*folders)
    assert cells(text) == ["26.0 ± 1.0", spread]
    assert text.startswith("b (p1), seeds 0, 1, 2\n") and "| run |" in text


def test_variants_stand_beside_each_other_and_a_seed_counts_once(tmp_path):
    folders = [finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -2.0, beta=0.5)]
    folders.append(finished(tmp_path, 0, -4.0))  # the same run again: the last one counts
    assert cells(table(*folders)) == ["25.0", "-4.0", "-2.0"], "one base, shown once"


def test_a_run_that_stopped_early_does_not_hide_a_whole_one_of_its_seed(tmp_path):
    whole, early = finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -9.0)
    rewritten(early, scores=[], deltas=[])
    assert cells(table(whole, early)) == ["25.0", "-1.0"]


def test_variants_of_one_name_are_told_apart_by_what_differs(tmp_path):
    """Runs that were begun one by one are named after their views alone."""
    text = table(finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -2.0, beta=0.5))
    assert "| run beta=0.1 | -1.0 * |\n| run beta=0.5 | -2.0 * |" in text
    seeds = [finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -1.0)]
    for seed, folder in enumerate(seeds):
        benchmark = {"benchmark": {"b": {"kind": "shapes", "seed": seed}}}
        (folder / "config.yaml").write_text(yaml.safe_dump(benchmark))
    text = table(*seeds)
    assert "| run b.seed=0 |" in text and "| run b.seed=1 |" in text
    odd = table(*(finished(tmp_path, 0, -1.0, beta=beta) for beta in ("a|b", "c")))
    assert r"| run beta=a\|b |" in odd, "a cell stays one cell"


def test_variants_go_by_what_their_commands_do_not_share(tmp_path):
    folders = [finished(tmp_path, 0, -1.0, beta) for beta in (0.1, 0.5)]
    folders.append(finished(tmp_path, 1, -3.0, 0.5))
    common = "python -m seva_exp -cn seva_beta +aug=moco dpo.beta={} aug.moco.p='[0,1]' seed={}"
    for folder, beta, seed in zip(folders, (0.1, 0.5, 0.5), (0, 0, 1), strict=True):
        (folder / "overrides.txt").write_text(common.format(beta, seed) + " machine.runs=x\n")
    text = table(*folders)
    assert "| beta=0.1 (seed 0) |" in text and "| beta=0.5 (seed 0, 1) |" in text
    page = tmp_path / "page.html"
    assert main([*map(str, folders), "--out", str(page)]) == 0
    assert 'data-sort="beta=0.5, seed=1"' in page.read_text()


def test_keys_that_end_alike_say_whose_they_are():
    words = [
        ["+aug=[moco,byol]", f"aug.moco.p={moco}", f"+aug.byol.p={byol}", f"dpo.beta={moco}"]
        for moco, byol in ((0.1, 0.5), (0.5, 0.1))
    ]
    assert distinct_names(words) == [
        "moco.p=0.1, byol.p=0.5, beta=0.1",
        "moco.p=0.5, byol.p=0.1, beta=0.5",
    ]
    assert distinct_names([["arm/rejected=blend"], ["arm/rejected=moco"]])[0] == "rejected=blend"


def test_what_there_is_more_of_goes_down_the_page(tmp_path):
    run = finished(tmp_path, 0, -1.0)
    report = json.loads((run / "report.json").read_text())
    for field in ("scores", "deltas"):
        first = [row for row in report[field] if row["metric"] == "chair_i"]
        report[field] += [row | {"metric": f"other{i}"} for i in range(3) for row in first]
    rewritten(run, **{field: report[field] for field in ("scores", "deltas")})
    assert "| metric | base | run |\n" in table(run)
    assert "| chair_i ↓ | 25.0 | -1.0 * |" in table(run)
    some = markdown(compared(run), ["chair/other[12]"])
    assert "other1" in some and "other2" in some and "chair_i" not in some
    assert "for 4 changes" in some, "what is not shown counts all the same"
    with pytest.raises(InputError, match=r"--metrics chair/othr1: .*Did you mean 'chair/other1'"):
        markdown(compared(run), ["chair/othr1"])


def test_a_change_of_nothing_has_no_sign_of_a_loss(tmp_path):
    assert cells(table(finished(tmp_path, 0, -0.04)))[1] == "+0.0"


def test_small_numbers_have_the_digits_that_their_change_needs(tmp_path):
    """Nats: one decimal would show every change as 0; percents keep theirs."""
    folder = finished(tmp_path, 0, -1.0)
    found = json.loads((folder / "report.json").read_text())
    nats = {"split": "words", "metric": "g", "better": "neutral"}
    for field, values in (("scores", (0.31, 0.362)), ("deltas", (0.052,))):
        first = found[field][: len(values)]
        found[field] += [
            row | nats | {"value": value, "low": value - 0.02, "high": value + 0.02}
            for row, value in zip(first, values, strict=True)
        ]
    rewritten(folder, **{field: found[field] for field in ("scores", "deltas")})
    text = table(folder)
    assert "| words g | 0.31 | +0.05 * |" in text
    assert "| chair_i ↓ | 25.0 | -1.0 * |" in text


def test_two_protocols_are_two_tables(tmp_path):
    text = table(finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -2.0, 0.5, protocol="p2"))
    assert text.count("b (p") == 2
    assert cells(text) == ["25.0", "-1.0"]
    assert cells(text[text.index("b (p2)") :]) == ["25.0", "-2.0"]


def test_a_change_is_marked_by_its_p_corrected_for_the_whole_table(tmp_path):
    """Three variants: 0.01 x 3, 0.02 x 2 (and not below 0.03), 0.6."""
    folders = [
        finished(tmp_path, 0, -1.0, beta, p=p) for beta, p in ((1, 0.02), (2, 0.6), (3, 0.01))
    ]
    text = table(*folders)
    assert cells(text, tests=True)[1:] == ["-1.0 *", "-1.0", "-1.0 *"]
    assert "correction for 3 changes" in text
    assert cells(table(folders[0]), tests=True)[1] == "-1.0 *"
    more = [*folders, finished(tmp_path, 0, -1.0, 4, p=0.7)]
    crowded = cells(table(*more), tests=True)
    assert crowded[1] == "-1.0 (*)", "among four it is no longer one"


def test_seeds_together_are_marked_only_if_each_shows_the_change(tmp_path):
    both = [finished(tmp_path, seed, -1.0 - seed, p=p) for seed, p in enumerate((0.001, 0.03))]
    assert cells(table(*both), tests=True)[1] == "-1.5 ± 0.7 *"
    text = table(*both, finished(tmp_path, 2, -2.0, p=0.06))
    assert "*" not in cells(text, tests=True)[1], "one seed does not show it"
    text = table(*both, finished(tmp_path, 2, 2.0, p=0.001))
    assert "*" not in cells(text, tests=True)[1], "the seeds disagree"


def test_a_gain_that_is_bought_says_with_what(tmp_path):
    folder = finished(tmp_path, 0, -3.0, p=1e-6)
    [delta] = [d for d in json.loads((folder / "report.json").read_text())["deltas"][:1]]
    recall = delta | {"metric": "recall", "better": "higher", "value": -9.0}
    config = {"benchmark": {"b": {"kind": "shapes"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rewritten(folder, deltas=[delta, recall])
    del delta["price"]  # an older version's report
    found = compared(folder)
    [change] = next(row for row in found.changes if row).values()
    assert change.verdict == "at a price"
    assert "-3.0 * (at the price of recall)" in markdown(found)
    rewritten(folder, deltas=[delta, recall | {"p": 0.6}])
    assert "-3.0 * |" in table(folder)


def test_results_that_are_none_are_told_beside_the_tables_and_on_the_page(tmp_path, capsys):
    folders = [finished(tmp_path, seed, -1.0) for seed in range(2)]
    void = {"kind": "adapter_unchanged", "text": "training <changed> nothing", "no_result": True}
    stage = {"name": "align", "cached": False, "seconds": 1.0}
    for seed, folder in enumerate(folders):
        stages = [stage | {"key": f"k{seed}"}, stage | {"name": "evaluate.base.b", "key": "same"}]
        shared = {"stage": "evaluate.base.b", "kind": "empty_answers", "text": "3 of 9 empty"}
        findings = [void | {"stage": "align"}] * seed + [shared]
        rewritten(folder, findings=findings, stages=stages)
    assert main([*map(str, folders), "--out", str(tmp_path / "page.html")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert said == [
        "warning: run_seed=0, run_seed=1: evaluate.base.b: 3 of 9 empty",
        "warning: run_seed=1: align: training <changed> nothing; there is no result",
    ]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "run_seed=1: align: training &lt;changed&gt; nothing; there is no result." in page


def test_different_bases_stand_beside_their_groups(tmp_path):
    text = table(finished(tmp_path, 0, -1.0), finished(tmp_path, 1, -2.0, beta=0.5))
    assert cells(text) == ["25.0", "-1.0", "26.0", "-2.0"]


def test_latex_is_booktabs_with_its_signs_escaped(tmp_path):
    text = latex(compared(*(finished(tmp_path, seed, -1.0 - seed) for seed in (0, 1))))
    assert r" & chair\_i $\downarrow$ \\" in text and r"run & $-$1.5 $\pm$ 0.7 * \\" in text
    assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 1


def test_the_csv_has_every_number_and_what_differs(tmp_path):
    folders = [finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -2.0, beta=0.5)]
    text = to_csv(compared(*folders))
    base, first, second = csv.DictReader(io.StringIO(text))
    assert (base["model"], base["dpo.beta"], base["b@p1/chair/chair_i/value"]) == (
        "base",
        "",
        "25.0",
    )
    assert [row["dpo.beta"] for row in (first, second)] == ["0.1", "0.5"]
    assert second["b@p1/chair/chair_i/value"] == "23.0"
    assert second["b@p1/chair/chair_i/change"] == "-2.0"
    assert float(second["b@p1/chair/chair_i/p_holm"]) == 2 * 0.01, "two runs in the column"


def test_no_cell_of_the_csv_is_a_formula(make_run):
    evil = ["=cmd|' /C calc'!A0", "@SUM(1)", "+x", "-x"]
    runs = [make_run(f"r{n}", model={"kind": "hub", "path": text}) for n, text in enumerate(evil)]
    comparison = Comparison.of(ComparedRun.read_all(runs)[0])
    rows = list(csv.reader(io.StringIO(to_csv(comparison))))
    cells = [cell for row in rows for cell in row]
    assert {f"'{text}" for text in evil} <= set(cells)
    for cell in cells:
        assert cell[:1] not in ("=", "+", "-", "@") or float(cell) is not None


def test_a_folder_without_a_finished_run_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main([str(empty)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    assert not Path("compare.html").exists()
    odd, unfinished = finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -1.0)
    (odd / "report.json").write_text("[]")
    (unfinished / "report.json").unlink()
    assert main([str(odd), str(unfinished), str(finished(tmp_path, 1, -1.0))]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("left out") == 2, "the others are shown"
    assert "is not finished" in shown.err
    assert "chair_i" in shown.out and "page: compare.html" in shown.out
    files = {path.name for path in tmp_path.glob("compare.*")}
    assert files == {"compare.html", "compare.csv", "compare.md", "compare.tex"}
    assert main([str(finished(tmp_path, 1, -1.0)), "--against", str(odd)]) == 2


def test_what_is_no_run_is_told_so_that_one_can_mend_it(tmp_path, capsys):
    run, bare = finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -1.0)
    rewritten(bare, scores=[], deltas=[])
    (tmp_path / ".seva_exp").touch()
    for given, told in ((tmp_path, "give those in it"), (tmp_path / "typo", "no such folder")):
        assert main([str(given)]) == 2
        assert f"{given}: " in (said := capsys.readouterr().err) and told in said
    assert main([str(run), "--against", str(bare)]) == 2
    assert "measured nothing" in capsys.readouterr().err


def test_with_a_chosen_run_the_tables_tell_the_change_from_it(make_run, capsys):
    """As the page does: a page has one kind of change."""
    one = make_run("a", right=0.6, dpo={"beta": 0.1})
    others = [make_run(f"b{seed}", seed, 0.95, dpo={"beta": 0.5}) for seed in (0, 1)]
    out = one.parent / "compare.html"
    assert main([*map(str, others), "--against", str(one), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("|")]
    runs = [ComparedRun.read(folder) for folder in (*others, one)]
    found = Comparison.of(runs, runs[2:])
    column = next(c for c in found.columns if (c.split, c.metric) == ("pope", "accuracy"))
    changes = [found.changes[i][column].delta.value for i in found.finals[:2]]
    value = found.references.models[0].scores[column].value
    row = next(line for line in lines if line[0] == column.label)
    told = f"{statistics.fmean(changes):+.1f} ± {statistics.stdev(changes):.1f} *"
    assert row == [column.label, f"{value:.1f}", told]
    assert lines[0] == ["metric", "a (seed 0)", "b0 (seed 0, 1)"]


SAME = "python -m seva_exp +aug=moco "


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        (["dpo.beta=0.1 data_root=/a", "dpo.beta=0.5 data_root=/b"], ["beta=0.1", "beta=0.5"]),
        (["dpo.beta=0.1 stop_after=align", "dpo.beta=0.5"], ["beta=0.1", "beta=0.5"]),
        (["data_root=/a", "data_root=/b"], ["run beta=0.1", "run beta=0.5"]),
        (["stop_after=align", "dry_run=false"], ["run beta=0.1", "run beta=0.5"]),
        (["machine.store=/a", "machine.runs=/b"], ["run beta=0.1", "run beta=0.5"]),
        (["arm/lora=r8 machine=gpu_80gb", "arm/lora=r32"], ["lora=r8", "lora=r32"]),
        (["data@instructions=hf", "data@instructions=instruct"], ["data@instructions=hf"]),
        (["name=one", "name=two machine.runs=/b"], ["run beta=0.1", "run beta=0.5"]),
    ],
    ids=str,
)
def test_a_run_is_named_by_what_is_said_of_the_experiment(tmp_path, words, titles):
    folders = [finished(tmp_path, 0, -1.0, beta) for beta in (0.1, 0.5)]
    for folder, said in zip(folders, words, strict=True):
        (folder / "overrides.txt").write_text(SAME + said + " seed=0\n")
    text = table(*folders)
    for title in titles:
        assert f"| {title} |" in text
    other = r"data_root|stop_after|dry_run|store|runs|gpu|=/"
    assert not re.search(other, text), "where and how far it runs is no name"


def test_a_sweeps_runs_are_not_named_by_the_folder_that_it_varies(tmp_path, make_run):
    """A sweep over ``data_root`` calls its folders by it, so that they can be told apart."""
    values = Experiment(aug={"moco": Moco()}, dpo=DpoTraining(beta=0.5)).to_json()
    run = make_run("moco_data_root=-a", **values)
    (run / "overrides.txt").write_text(SAME + "data_root=/a seed=0\n")
    assert ComparedRun.read(run).name == "moco"
    text = markdown(compared(run))
    assert "| moco |" in text and "data_root" not in text
    page = tmp_path / "page.html"
    assert main([str(run), "--out", str(page)]) == 0
    assert 'data-sort="moco"' in page.read_text()
    (run / "overrides.txt").write_text(SAME + "name=moco_data_root=-a\n")
    assert ComparedRun.read(run).name == "moco_data_root=-a", "a person called it so"


def test_a_sweeps_folder_stands_for_the_runs_that_it_did(tmp_path, monkeypatch):
    """In the jobs' order; one that failed has no run."""
    done = [finished(tmp_path, seed, -1.0) for seed in (0, 1)]
    ended = iter([Ended(run=str(done[0])), Ended(2, "bad"), Ended(run=str(done[1]))])
    monkeypatch.setattr("seva_exp.command.sweep.work_or_tell", lambda *job: next(ended))
    sweep = Sweep(tmp_path / "multirun" / "now", print, print)
    for number in (2, 3, 10):
        sweep.do(number, Job({}, (f"seed={number}",)))
    runs, left_out = ComparedRun.read_all([sweep.folder])
    assert [run.folder for run in runs] == done and not left_out


@pytest.mark.parametrize("out", [".", "README", "compare.md", "file/compare.html"])
def test_a_page_that_cannot_be_written_is_refused(out, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    run = finished(tmp_path, 0, -1.0)
    before = set(tmp_path.iterdir())
    assert main([str(run), "--out", out]) == 2
    assert capsys.readouterr().err.startswith(f"seva_exp: {out}: ")
    assert set(tmp_path.iterdir()) == before


def test_what_else_lies_in_a_folder_of_runs_is_passed_over(tmp_path, capsys):
    run = finished(tmp_path, 0, -1.0)
    for name in ("store", "multirun"):
        (run.parent / name).mkdir()
    (run.parent / ".seva_exp").touch()
    out, missing = str(tmp_path / "compare.html"), str(run.parent / "nosuch")
    given = [*map(str, run.parent.glob("[!.]*")), missing]
    assert main([*given, "--out", out]) == 0
    left_out = capsys.readouterr().err.splitlines()
    assert len(left_out) == 1 and "nosuch" in left_out[0], "a name that was mistyped is told"


@pytest.mark.parametrize("words", [["--help"]])
def test_the_command_tells_what_it_does(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert "side by side" in capsys.readouterr().out
