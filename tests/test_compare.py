"""Finished runs side by side: seeds together, variants apart, protocols never mixed."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import yaml

from seva_exp.compare import main, read_run, tables


def score(model: str, value: float, protocol: str = "p1") -> dict:
    row = {"model": model, "benchmark": "b", "split": "chair", "metric": "chair_i"}
    return row | {"value": value, "protocol": protocol, "better": "lower", "n": 9}


def delta(value: float, model: str = "aligned", p: float = 0.5, metric: str = "chair_i") -> dict:
    row = {"model": model, "benchmark": "b", "split": "chair", "metric": metric}
    return row | {"value": value, "better": "lower", "p": p}


def finished(
    folder: Path,
    seed: int,
    change: float,
    beta: float = 0.1,
    protocol: str = "p1",
    p: float = 0.5,
):
    path = folder / f"run-{len(list(folder.iterdir()))}"
    path.mkdir()
    scores = [
        score("base", 25.0 + seed, protocol),
        score("aligned", 25.0 + seed + change, protocol),
    ]
    deltas = [delta(change, p=p), delta(99.0, "round1", 1e-9)]
    report = {"name": f"run_seed={seed}", "seed": seed, "scores": scores, "deltas": deltas}
    (path / "report.json").write_text(json.dumps(report))
    config = {"dpo": {"beta": beta}, "seed": seed, "name": f"n{seed}", "machine": {"runs": "x"}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def cells(text: str, tests: bool = False) -> list[str]:
    """The first row of metrics; without what is said of chance, unless ``tests``."""
    line = next(line for line in text.splitlines() if line.startswith("| chair_i"))
    found = [cell.strip() for cell in line.strip("|").split("|")]
    return found if tests else [cell.partition(" (p")[0] for cell in found]


def test_the_seeds_of_a_variant_are_one_group_with_mean_and_deviation(tmp_path):
    changes = [-2.0, -3.0, -7.0]
    folders = [finished(tmp_path, seed, change) for seed, change in enumerate(changes)]
    spread = f"{statistics.fmean(changes):+.1f} ± {statistics.stdev(changes):.1f}"
    text = tables([read_run(folder) for folder in folders])
    assert cells(text) == ["chair_i ↓", "26.0 ± 1.0", spread]
    assert "| run (seed 0, 1, 2) |" in text


def test_variants_stand_beside_each_other_and_a_seed_counts_once(tmp_path):
    folders = [finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -2.0, beta=0.5)]
    folders.append(finished(tmp_path, 0, -4.0))  # the same run again: the last one counts
    text = tables([read_run(folder) for folder in folders])
    assert cells(text) == ["chair_i ↓", "25.0", "-4.0", "-2.0"], "one base, shown once"


def test_two_protocols_are_two_tables(tmp_path):
    folders = [finished(tmp_path, 0, -1.0), finished(tmp_path, 0, -2.0, 0.5, protocol="p2")]
    text = tables([read_run(folder) for folder in folders])
    assert text.count("b (p") == 2
    assert cells(text) == ["chair_i ↓", "25.0", "-1.0"]
    assert cells(text[text.index("b (p2)") :]) == ["chair_i ↓", "25.0", "-2.0"]


def test_a_change_is_marked_by_its_p_corrected_for_the_whole_table(tmp_path):
    """Three variants: 0.01 x 3, 0.02 x 2 (and not below 0.03), 0.6."""
    folders = [
        finished(tmp_path, 0, -1.0, beta, p=p) for beta, p in ((1, 0.02), (2, 0.6), (3, 0.01))
    ]
    text = tables([read_run(folder) for folder in folders])
    assert cells(text, tests=True)[2:] == [
        "-1.0 (p = 0.020, Holm p = 0.040) *",
        "-1.0 (p = 0.60, Holm p = 0.60)",
        "-1.0 (p = 0.010, Holm p = 0.030) *",
    ]
    assert "correction for the 3 changes of this table" in text
    alone = tables([read_run(folders[0])])
    assert cells(alone, tests=True)[2] == "-1.0 (p = 0.020, Holm p = 0.020) *"
    more = [*folders, finished(tmp_path, 0, -1.0, 4, p=0.7)]
    crowded = cells(tables([read_run(folder) for folder in more]), tests=True)
    assert crowded[2] == "-1.0 (p = 0.020, Holm p = 0.060)", "among four it is no longer one"


def test_seeds_together_are_marked_only_if_each_shows_the_change(tmp_path):
    both = [finished(tmp_path, seed, -1.0 - seed, p=p) for seed, p in enumerate((0.001, 0.03))]
    text = tables([read_run(folder) for folder in both])
    assert cells(text, tests=True)[2] == "-1.5 ± 0.7 (p = 0.030, Holm p = 0.030) *"
    other = [*both, finished(tmp_path, 2, 2.0, p=0.001)]
    text = tables([read_run(folder) for folder in other])
    assert cells(text, tests=True)[2].endswith("(p = 1.00, Holm p = 1.00)"), "the seeds disagree"


def test_different_bases_stand_beside_their_groups(tmp_path):
    folders = [finished(tmp_path, 0, -1.0), finished(tmp_path, 1, -2.0, beta=0.5)]
    text = tables([read_run(folder) for folder in folders])
    assert cells(text) == ["chair_i ↓", "25.0", "-1.0", "26.0", "-2.0"]


def test_a_folder_without_a_finished_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    odd = finished(tmp_path, 0, -1.0)
    (odd / "report.json").write_text("[]")
    assert main([str(odd), str(finished(tmp_path, 1, -1.0))]) == 0, "the others are shown"
    shown = capsys.readouterr()
    assert "left out" in shown.err
    assert "chair_i" in shown.out


@pytest.mark.parametrize("words", [["--help"]])
def test_the_command_tells_what_it_does(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert "side by side" in capsys.readouterr().out
