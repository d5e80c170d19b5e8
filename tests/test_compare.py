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


def delta(value: float, model: str = "aligned") -> dict:
    row = {"model": model, "benchmark": "b", "split": "chair", "metric": "chair_i"}
    return row | {"value": value, "better": "lower"}


def finished(folder: Path, seed: int, change: float, beta: float = 0.1, protocol: str = "p1"):
    path = folder / f"run-{len(list(folder.iterdir()))}"
    path.mkdir()
    scores = [
        score("base", 25.0 + seed, protocol),
        score("aligned", 25.0 + seed + change, protocol),
    ]
    deltas = [delta(change), delta(99.0, "round1")]
    report = {"name": f"run_seed={seed}", "seed": seed, "scores": scores, "deltas": deltas}
    (path / "report.json").write_text(json.dumps(report))
    config = {"dpo": {"beta": beta}, "seed": seed, "name": f"n{seed}", "machine": {"runs": "x"}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def cells(text: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith("| chair_i"))
    return [cell.strip() for cell in line.strip("|").split("|")]


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
