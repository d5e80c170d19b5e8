"""Benchmarks that a judge scores: runs are compared by what was judged, not by what was said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.base import Question
from seva_exp.benchmarks.judge_answers import judged_scores, settled
from seva_exp.benchmarks.samples import make_samples
from seva_exp.benchmarks.shr import sentences
from seva_exp.compare.changed import changed
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.runs import ComparedRun
from seva_exp.compare.tables import markdown
from seva_exp.core.records import (
    ALIGNED,
    BASE,
    Judgement,
    Prediction,
    Report,
    StageResult,
    read_jsonl,
    write_jsonl,
)
from seva_exp.runs.export import read_run as read_for_export
from seva_exp.runs.reader import FinishedRun

KINDS = ("llava_bench", "mathvista", "mmvet", "shr")
SAID = "Nobody knows. Something blue, perhaps."
"""Whatever is asked: before the judge all answers are worth the same."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "root"
    make_samples(folder)
    return folder


def reply(kind: str, question: Question, right: bool) -> str:
    """A judge's reply to ``SAID``."""
    if kind == "shr":
        label = "correct" if right else "hallucination"
        return "\n".join(f"{i}. {label}" for i, _ in enumerate(sentences(SAID), 1))
    right_wrong = {
        "llava_bench": ("8 8", "8 2"),
        "mmvet": ("1.0", "0.0"),
        "mathvista": (question.target, "NONE"),
    }
    return right_wrong[kind][not right]


def a_run(folder: Path, root: Path, share: float, left_open: int = 0, beta: float = 0.1) -> Path:
    """A finished run of whose final answers the judge finds this share right, and of the base's
    none; ``left_open`` of the final answers to each benchmark have no verdict."""
    folder.mkdir(parents=True)
    stages: list[str] = []
    found = []
    benchmarks = {kind: OFFICIAL[kind](kind=kind, protocol="tiny") for kind in KINDS}
    for kind, benchmark in benchmarks.items():
        questions = list(benchmark.questions(root))
        judging = benchmark.judging(root, own=True)
        said = [benchmark.predict(question, SAID) for question in questions]
        for model in (BASE, ALIGNED):
            judgements = []
            for i, (q, one) in enumerate(zip(questions, said, strict=True)):
                right = model == ALIGNED and i < share * len(questions)
                if model == ALIGNED and i < left_open:
                    continue
                verdict = judging.read(reply(kind, q, right), q, one)
                said_of_it = (verdict.extracted, verdict.score, verdict.counts)
                judgements.append(Judgement(q.id, 0, "", *said_of_it))
            names = {"model": model, "benchmark": kind, "protocol": "tiny+judge"}
            found += judged_scores(benchmark, said, judgements, names)
            for stage, rows in (("evaluate", said), ("judge", settled(said, judgements))):
                stages.append(f"{stage}.{model}.{kind}")
                (folder / stages[-1]).mkdir()
                write_jsonl(folder / stages[-1] / "predictions.jsonl", rows)
    results = tuple(StageResult(name, name, False, 1.0) for name in stages)
    report = Report("k", folder.name, 0, str(folder), results, scores=tuple(found))
    (folder / "report.json").write_text(json.dumps(report.to_json()))
    config = {name: one.to_json() for name, one in benchmarks.items()}
    config = {"benchmark": config, "dpo": {"beta": beta}, "data_root": str(root)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def against(*folders: Path) -> Comparison:
    runs = [ComparedRun.read(folder) for folder in folders]
    return Comparison.of(runs, runs[:1])


@pytest.fixture(scope="module")
def half_and_all(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return a_run(folder / "half", root, 0.5), a_run(folder / "all", root, 1.0, beta=0.5)


def test_judged_50_and_100_percent_is_a_change_of_50(half_and_all):
    found = against(*half_and_all)
    (all_,) = (i for i in found.finals if found.models[i].run.folder == half_and_all[1])
    changes = {(c.benchmark, c.split, c.metric): d for c, d in found.changes[all_].items()}
    change = changes["mathvista", "all", "accuracy"]
    assert change.delta.value == 50.0 and change.delta.p < change.corrected < 0.05
    assert change.verdict == "better"
    assert changes["shr", "all", "shr"].delta.value == -50.0
    assert changes["mmvet", "all", "score"].delta.value == 50.0
    assert changes["llava_bench", "all", "relative"].delta.value > 0
    assert "+50.0 *" in markdown(found)


def test_every_judged_score_has_a_change(half_and_all):
    found = against(*half_and_all)
    (all_,) = (i for i in found.finals if found.models[i].run.folder == half_and_all[1])
    scored = {column for column in found.models[all_].scores if column.metric != "unjudged"}
    assert set(found.changes[all_]) == scored
    assert {column.benchmark for column in scored} == set(KINDS)
    for kind in KINDS:  # a benchmark's tests are a family, whatever others share its protocol
        tests = [row[c].tests for row in found.changes for c in row if c.benchmark == kind]
        assert set(tests) == {len(tests)}


def test_what_was_fixed_is_told_by_the_judge(half_and_all):
    rows = {row["benchmark"]: row["found"] for row in changed(against(*half_and_all))}
    assert set(rows) == set(KINDS)
    for found in rows.values():
        assert found.fixed_total > 0 and found.broken_total == 0
        assert found.unjudged_total == 0


def test_answers_that_a_judge_left_open_are_in_no_pair(root, half_and_all, tmp_path):
    part = a_run(tmp_path / "part", root, 1.0, left_open=3, beta=0.7)
    found = against(half_and_all[0], part)
    (i,) = (i for i in found.finals if found.models[i].run.folder == part)
    column = next(c for c in found.changes[i] if (c.benchmark, c.metric) == ("mmvet", "score"))
    said = [found.models[j].predictions("mmvet") for j in (found.finals[0], i)]
    both = [(a, b) for a, b in zip(*said, strict=True) if None not in (a.score, b.score)]
    assert len(both) == len(said[0]) - 3
    mean = 100 * sum(b.score - a.score for a, b in both) / len(both)
    assert found.changes[i][column].delta.value == pytest.approx(mean)


def test_one_reader_finds_a_runs_final_answers(half_and_all, tmp_path):
    """Of the comparison and of the export; also where links are text files."""
    folder = half_and_all[0]
    run = ComparedRun.read(folder)
    for one in read_for_export(folder).evaluated():
        assert one.predictions == run.predictions_file(one.model, one.benchmark)
        assert one.predictions.parent.name == f"judge.{one.model}.{one.benchmark}"
    (tmp_path / "judge.base.shr").write_text(f"{folder / 'judge.base.shr'}\n")
    found = FinishedRun(tmp_path, run.report, {}).predictions_file(BASE, "shr")
    assert found == folder / "judge.base.shr" / "predictions.jsonl"
    assert scored(found) and None not in scored(found)


def scored(file: Path) -> list[float | None]:
    return [one.score for one in read_jsonl(file, Prediction)]
