"""Whole suites on the embedded model: every benchmark in the table, one load of the model."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seva_exp import Options, run
from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.evaluate import ask, conclude
from seva_exp.benchmarks.statistics import scores
from seva_exp.command.config import parse
from seva_exp.core.interfaces import Placement
from seva_exp.core.machine import Machine
from seva_exp.core.paths import config_dir
from seva_exp.core.progress import progress
from seva_exp.core.records import Prediction, Score, read_jsonl
from seva_exp.data.__main__ import main as data_command
from seva_exp.decoding.engine import Engine
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load
from seva_exp.stages import base, loaded

from .judges import judge

SEVA = {"pope", "mmbench_en", "mmbench_cn", "seed", "scienceqa", "gqa", "textvqa", "mme", "chair"}
JUDGED = {"mmvet", "llava_bench", "shr"}
RATED = {"mmhal"}
STIC = {"scienceqa", "textvqa", "chartqa", "mmbench_en", "mathvista"}
VISION = {"hallusionbench", "naturalbench", "mmstar", "mmvp", "cv_bench"}
HALLUCINATION = {
    *("amber", "object_halbench", "chair", "hallusionbench"),
    *("pope", "pope_aokvqa", "pope_gqa"),
}
SUITES = {
    "seva_suite": (SEVA, JUDGED),
    "stic_suite": (STIC, JUDGED - {"shr"}),
    "hallucination_suite": (HALLUCINATION, {"shr", "mmhal"}),
    "vision_suite": (VISION, RATED),
}
"""The benchmarks of each, and those that need a judge."""


def composed(*overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", ["+aug=moco", *overrides])
    return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_is_its_benchmarks(suite):
    names, judged = SUITES[suite]
    assert set(parse(composed(f"benchmark={suite}")).experiment.benchmark) == names
    words = [f"benchmark={suite}", "judge=openai", "judge.model=x"]
    assert set(parse(composed(*words)).experiment.benchmark) == names | judged
    assert set(LEAST) | JUDGED | RATED == set(OFFICIAL)


def test_the_protocol_is_the_shared_one_unless_a_benchmark_names_its_own():
    words = ["benchmark=[pope,mme]", "model=llava15_7b"]
    own = [*words, "benchmark.protocol=lmms_eval", "benchmark.mme.protocol=vlmevalkit"]

    def protocols(overrides: list[str]) -> dict[str, str]:
        found = parse(composed(*overrides)).experiment.benchmark
        return {name: benchmark.protocol_name for name, benchmark in found.items()}

    assert protocols(words) == {"pope": "llava15", "mme": "llava15"}
    assert protocols(own) == {"pope": "lmms_eval", "mme": "vlmevalkit"}
    assert protocols(["benchmark=[shapes,pope]"])["pope"] == "tiny", "the embedded model's"


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu"))


LEAST = {
    "pope": ("mean", "accuracy", 80), "mme": ("perception", "score", 1400),
    "mmbench_en": ("all", "accuracy", 70), "mmbench_cn": ("all", "accuracy", 70),
    "seed": ("all", "accuracy", 75), "scienceqa": ("all", "accuracy", 75),
    "gqa": ("all", "accuracy", 60), "textvqa": ("all", "accuracy", 60),
    "chartqa": ("all", "accuracy", 60), "mathvista": ("all", "accuracy", 35),
    "chair": ("all", "recall", 60), "hallusionbench": ("all", "aAcc", 75),
    "naturalbench": ("all", "accuracy", 70), "mmstar": ("all", "accuracy", 75),
    "mmvp": ("all", "pair_accuracy", 60), "cv_bench": ("all", "accuracy", 75),
    "amber": ("existence", "f1", 80), "object_halbench": ("all", "recall", 60),
    "pope_aokvqa": ("mean", "accuracy", 80), "pope_gqa": ("mean", "accuracy", 80),
}  # fmt: skip
"""Far above chance: the embedded model can answer its samples, and the rules read what it says."""


def evaluated(benchmark, vlm, root: Path, work: Path) -> list[Score]:
    place = Placement("cpu", 64, 1, False, partial(progress, "off"), work)
    ask(benchmark, lambda: Engine(vlm, 64), place, "evaluate", root=root)
    return conclude(benchmark, work, model="base", name=benchmark.kind, root=root)[1]


@pytest.mark.parametrize("kind", sorted(LEAST))
def test_the_embedded_model_answers_the_samples(kind, vlm, samples, tmp_path):
    benchmark = OFFICIAL[kind](kind=kind, protocol="tiny")
    found = evaluated(benchmark, vlm, samples, tmp_path)
    values = {(score.split, score.metric): score for score in found}
    split, metric, least = LEAST[kind]
    assert values[split, metric].value >= least
    questions = {q.id: q for q in benchmark.questions(samples)}
    predictions = list(read_jsonl(tmp_path / "predictions.jsonl", Prediction))
    assert [p.sample_id for p in predictions] == list(questions)
    for one in predictions:
        assert (one.prompt, one.target) == (
            questions[one.sample_id].prompt,
            questions[one.sample_id].target,
        )
        again = benchmark.predict(questions[one.sample_id], one.text)
        assert (again.extracted, again.score, again.counts) == (
            one.extracted,
            one.score,
            one.counts,
        )
    for score in found:
        assert score.low <= score.value <= score.high
        assert score.n > 0
        assert score.protocol == benchmark.protocol_name
    names = {"model": "base", "benchmark": kind, "protocol": benchmark.protocol_name}
    assert scores(benchmark.metrics, predictions[::-1], **names) == found


@pytest.mark.parametrize("kind", sorted(JUDGED | RATED))
def test_what_a_judge_has_to_score_is_kept_and_enters_no_metric(kind, vlm, samples, tmp_path):
    assert OFFICIAL[kind].needs_judge
    found = evaluated(OFFICIAL[kind](kind=kind, protocol="tiny"), vlm, samples, tmp_path)
    assert found == []
    predictions = list(read_jsonl(tmp_path / "predictions.jsonl", Prediction))
    assert {one.score for one in predictions} == {None}
    assert all(one.text for one in predictions)


def test_a_suite_loads_the_model_once_and_reports_every_benchmark(samples, tmp_path, monkeypatch):
    loads = []

    def counted(spec, machine, adapter, warn):
        loads.append(adapter)
        return original(spec, machine, adapter, warn)

    original = loaded.load_model
    monkeypatch.setattr(loaded, "load_model", counted)
    wanted = parse(composed("benchmark=seva_suite", "data.samples=2", "tracker=none"))
    machine = Machine(runs=str(tmp_path), progress="off", device="cpu")
    options = Options(data_root=str(samples), stop_after="evaluate.base")
    report = run(wanted.experiment, machine, options)
    assert loads == [None]
    assert {score.benchmark for score in report.scores} == SEVA
    moved = tmp_path / "moved"
    shutil.copytree(samples, moved)
    again = run(
        wanted.experiment, machine, Options(data_root=str(moved), stop_after="evaluate.base")
    )
    assert all(stage.cached for stage in again.stages), "a moved folder changes no key"
    assert again.scores == report.scores


def test_faults_of_all_benchmarks_are_told_before_anything_is_done(samples, tmp_path, cli):
    root = tmp_path / "root"
    shutil.copytree(samples, root)
    (root / "gqa" / "GQA_TestDev_Balanced.tsv").write_text("index\tquestion\n0\n")
    shutil.rmtree(root / "mathvista")
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ["+aug=moco", "benchmark=[pope,gqa,mathvista]", f"data_root={root}", "tracker=none"]
    done = cli(*words, cwd=empty)
    assert done.returncode == 2
    assert "GQA_TestDev_Balanced.tsv: row 1 (line 2) has 1 columns" in done.stderr
    assert "benchmark.mathvista: its files are not there" in done.stderr
    assert str(root / "mathvista" / "testmini.json") in done.stderr
    assert list(empty.iterdir()) == []


def test_without_a_data_root_the_plan_says_so():
    experiment = parse(composed("benchmark=seva_suite")).experiment
    (said,) = experiment.lacking(None)
    assert "data_root=DIR" in said
    assert "SEVA_EXP_DATA" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "names", "with_judge"),
    [
        ("seva_suite", SEVA, False),
        ("stic_suite", STIC, False),
        ("seva_suite", SEVA | JUDGED, True),
        ("vision_suite", VISION, False),
        ("vision_suite", VISION | RATED, True),
        ("hallucination_suite", HALLUCINATION, False),
        ("hallucination_suite", HALLUCINATION | {"shr", "mmhal"}, True),
    ],
)
def test_a_suite_runs_from_the_command_line_under_three_minutes(
    suite, names, with_judge, samples, tmp_path, cli
):
    words = ["+aug=diffusion_noise", f"benchmark={suite}", f"data_root={samples}", "tracker=none"]
    start = time.monotonic()
    with judge() as endpoint:
        url = f"machine.judge.url={endpoint.url}"
        done = cli(*words, *(["judge=server", url] if with_judge else []))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 180
    out = ", ".join(sorted(SUITES[suite][1]))
    left_out = f"left out, since a judge scores them and judge=none: {out}"
    assert (left_out in done.stdout) == (not with_judge)
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    for model in ("base", "aligned"):
        assert {s["benchmark"] for s in report["scores"] if s["model"] == model} == names
    for name in names:
        assert f"\n{name} (tiny" in done.stdout


# python -m seva_exp.data


def test_check_lists_what_is_there_and_where_the_rest_goes(samples, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(samples, root)
    shutil.rmtree(root / "seed")
    (root / "gqa" / "GQA_TestDev_Balanced.tsv").write_text("")
    assert data_command(["check", str(root)]) == 2
    out = capsys.readouterr().out
    assert (
        "pope         found    72 questions, 12 pictures present, in pope; protocols: llava15"
        in out
    )
    assert f"seed         missing  put\n    {root}/seed/SEED-Bench.json\n" in out
    assert f"    or {root}/seed/SEEDBench_IMG.tsv (VLMEvalKit's table)\n" in out
    assert "gqa          damaged" in out
    assert len([x for x in out.splitlines() if x and x[0] != " "]) == len(OFFICIAL)


def test_deep_opens_every_picture(samples, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(samples, root)
    assert data_command(["check", str(root), "--deep"]) == 0
    assert "12 pictures opened" in capsys.readouterr().out
    picture = root / "chartqa" / "test" / "png" / "0002.png"
    picture.write_bytes(picture.read_bytes()[:200])
    assert data_command(["check", str(root)]) == 0, "nothing is decoded without it"
    capsys.readouterr()
    assert data_command(["check", str(root), "--deep"]) == 2
    out = capsys.readouterr().out
    assert f"chartqa      damaged  1 of 12 pictures cannot be opened: {picture}" in out


def test_check_takes_the_root_from_the_environment(samples, capsys, monkeypatch):
    monkeypatch.delenv("SEVA_EXP_DATA", raising=False)
    assert data_command(["check"]) == 0
    assert "DATA_ROOT/pope/coco_pope_random.json" in capsys.readouterr().out
    monkeypatch.setenv("SEVA_EXP_DATA", str(samples))
    assert data_command(["check"]) == 0
    assert "missing" not in capsys.readouterr().out
    monkeypatch.setenv("SEVA_EXP_DATA", "/nowhere-at-all")
    assert data_command(["check"]) == 2
    assert "$SEVA_EXP_DATA: there is no folder '/nowhere-at-all'" in capsys.readouterr().err


def test_samples_are_the_same_every_time_and_overwrite_nothing(samples, tmp_path, capsys):
    folder = tmp_path / "again"
    assert data_command(["make-samples", str(folder)]) == 0
    assert f"data_root={folder}" in capsys.readouterr().out
    files = sorted(file.relative_to(samples) for file in samples.rglob("*") if file.is_file())
    assert files == sorted(f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
    assert all((folder / f).read_bytes() == (samples / f).read_bytes() for f in files)
    assert data_command(["make-samples", str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_command_is_what_the_issue_says(tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "seva_exp.data", "check"]
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(Path(base.__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("missing") == len(OFFICIAL)
