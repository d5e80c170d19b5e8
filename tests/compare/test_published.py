"""Published numbers beside runs: each row's command composes, each metric is one of ours, and a
change is told inside its interval only where it is."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seva_exp.benchmarks import OFFICIAL
from seva_exp.command.config import parse
from seva_exp.compare.published import beside, main, published_rows, reproduced
from seva_exp.core.paths import config_dir
from seva_exp.core.records import Delta, Report, Score
from seva_exp.runs.reader import FinishedRun

ROWS = published_rows()
SEVA = ROWS[0]


def run_of(**changes: Delta) -> FinishedRun:
    """A finished run with these changes, as its folder would be read."""
    scores, deltas = [], []
    for name, delta in changes.items():
        split, metric = delta.split, delta.metric
        protocol = f"seva_exp-{name}-llava15-v1"
        for model, value in (("base", 50.0), ("aligned", 50.0 + delta.value)):
            scores.append(Score(model, name, split, metric, value, 0.0, 100.0, 90, protocol))
        deltas.append(delta)
    report = replace(Report("key", "mine", 0, "", ()), scores=tuple(scores), deltas=tuple(deltas))
    config = {"model": {"kind": "hub", "path": "/models/llava-1.5-7b-hf"}}
    return FinishedRun(Path("mine"), report, config)


def change(name: str, split: str, metric: str, value: float, low: float, high: float) -> Delta:
    return Delta(name, split, metric, value, low, high, 0.01)


RUN = run_of(
    mmvet=change("mmvet", "all", "score", 5.0, 1.0, 9.0),
    pope=change("pope", "mean", "accuracy", 3.0, 2.0, 4.0),
    llava_bench=change("llava_bench", "all", "relative", 3.0, 2.0, 4.0),
)


def test_a_published_change_is_inside_the_interval_or_not():
    found = {one.published.benchmark: one for one in reproduced(SEVA, RUN)}
    assert found["mmvet"].inside is True  # 30.5 -> 37.2: +6.7 in [1, 9]
    assert found["mmvet"].difference == pytest.approx(5.0 - 6.7)
    assert found["pope"].inside is False  # 85.9 -> 86.7: +0.8 is below [2, 4]
    assert found["llava_bench"].inside is None  # the source gives no base
    text = "\n".join(beside(SEVA, RUN))
    assert re.search(r"mmvet +30.5 -> 37.2 +50.0 -> 55.0 +\+5.0 \[\+1.0, \+9.0\] +-1.7  yes", text)
    assert re.search(r"pope .* no$", text, re.MULTILINE)


def test_other_protocols_and_models_are_left_out():
    other = tuple(
        replace(one, protocol="seva_exp-mmvet-vlmevalkit-v1") for one in RUN.report.scores
    )
    assert not list(reproduced(SEVA, replace(RUN, report=replace(RUN.report, scores=other))))
    half = tuple(replace(one, protocol="llava15+selection") for one in RUN.report.scores)
    assert not list(reproduced(SEVA, replace(RUN, report=replace(RUN.report, scores=half))))
    judged = tuple(replace(one, protocol="llava15+gpt-4-0613") for one in RUN.report.scores)
    assert list(reproduced(SEVA, replace(RUN, report=replace(RUN.report, scores=judged))))
    assert SEVA.is_of("llava-hf/llava-1.5-7b-hf") and SEVA.is_of("/models/llava-1.5-7b-hf")
    assert not SEVA.is_of("llava-hf/llava-1.5-13b-hf")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_each_row_s_command_composes_to_its_model_and_measures_its_benchmarks(row, tmp_path):
    words = shlex.split(row.command)[3:]
    assert f"experiment={row.preset}" in words
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", [*words, "judge=openai", "judge.model=m"])
    experiment = parse(OmegaConf.to_container(config, resolve=True)).experiment
    assert experiment.model.location() == row.model
    for one in row.scores:
        benchmark = experiment.benchmark[one.benchmark]
        assert type(benchmark) is OFFICIAL[one.benchmark]
        assert row.protocol in benchmark.protocol_name


def test_without_runs_it_tells_rows_and_commands(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(row.command in told for row in ROWS)
    assert re.search(r"mmvet +all/score +30.5 -> +37.2", told)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "holds no" in capsys.readouterr().err
