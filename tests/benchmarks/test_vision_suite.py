"""benchmark=vision_suite on the embedded model: questions without a picture among the others,
whatever runs beside them."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.evaluate import ask, conclude
from seva_exp.core.interfaces import Placement, Request
from seva_exp.core.machine import Machine
from seva_exp.core.progress import progress
from seva_exp.core.records import Prediction, read_jsonl
from seva_exp.decoding.engine import Engine
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load

from .judges import judge
from .test_judged_runs import asking_judge, run
from .test_suites import RATED, VISION

KINDS = ("hallusionbench", "naturalbench", "mmvp")


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu"))


class Shuffled:
    """An engine that gets what it is asked in another order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, requests):
        return self._engine.run(random.Random(1).sample(requests, len(requests)))


def predictions(benchmark, engine, root: Path, work: Path) -> bytes:
    place = Placement("cpu", 64, 1, False, partial(progress, "off"), work)
    ask(benchmark, lambda: engine, place, "evaluate", root=root)
    conclude(benchmark, work, model="base", name=benchmark.kind, root=root)
    return (work / "predictions.jsonl").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_scores_are_those_of_any_run(kind, vlm, samples, tmp_path):
    """In few rows and in many, in any order, byte for byte."""
    benchmark = OFFICIAL[kind](kind=kind, protocol="tiny")
    engines = {"many": Engine(vlm, 64), "few": Engine(vlm, 3), "order": Shuffled(Engine(vlm, 16))}
    found = {}
    for name, engine in engines.items():
        (tmp_path / name).mkdir()
        found[name] = predictions(benchmark, engine, samples, tmp_path / name)
    assert found["many"] == found["few"] == found["order"]


def test_what_has_no_picture_is_answered_as_the_prompt_alone(vlm, samples, tmp_path):
    benchmark = OFFICIAL["hallusionbench"](kind="hallusionbench", protocol="tiny")
    predictions(benchmark, Engine(vlm, 64), samples, tmp_path)
    said = {p.sample_id: p for p in read_jsonl(tmp_path / "predictions.jsonl", Prediction)}
    bare = [q for q in benchmark.questions(samples) if q.load is None]
    assert len(bare) == 8
    for question in bare:
        ids = vlm.encode_text(question.prompt).ids
        with torch.inference_mode():
            out = vlm.model.generate(
                input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=8
            )
        assert said[question.id].text == vlm.decode(out[0, len(ids) :].tolist())


def test_describe_and_respond_describes_pictures_alone(vlm, samples, tmp_path):
    """Each of a set's figures; a question without one is asked as it is."""
    plain = OFFICIAL["hallusionbench"](kind="hallusionbench", protocol="tiny")
    mode = {"prompt": "Describe the image.", "max_new_tokens": 24}
    both = OFFICIAL["hallusionbench"](
        kind="hallusionbench", protocol="tiny", describe_and_respond=mode
    )
    predictions(both, Engine(vlm, 64), samples, tmp_path)
    descriptions = (tmp_path / "descriptions.jsonl").read_text().splitlines()
    assert len(descriptions) == len({q.picture for q in plain.questions(samples) if q.load}) == 20
    prompts = {q.id: q for q in plain.questions(samples)}
    for one in read_jsonl(tmp_path / "predictions.jsonl", Prediction):
        question = prompts[one.sample_id]
        assert (one.prompt == question.prompt) == (question.load is None)
        assert one.prompt.endswith(question.prompt)


def test_pictures_of_a_group_are_seen_apart(vlm, samples, tmp_path):
    """With one picture for both, a group of NaturalBench cannot be right."""
    benchmark = OFFICIAL["naturalbench"](kind="naturalbench", protocol="tiny")
    questions = list(benchmark.questions(samples))
    groups = {q.group: q for q in reversed(questions)}
    blind = [replace(q, shows="one", load=groups[q.group].load) for q in questions]
    whole = {}
    for name, asked in (("both", questions), ("one", blind)):
        requests = [Request(q.id, f"{q.group}/{q.picture}", q.load, q.prompt, 8) for q in asked]
        replies = {r.id: r.text for some in Engine(vlm, 64).run(requests) for r in some}
        rows = [benchmark.predict(q, replies[q.id]) for q in questions]
        right = [all(p.score == 1 for p in rows if p.group == group) for group in groups]
        whole[name] = sum(right)
    assert whole["both"] >= 5
    assert whole["one"] == 0


def test_the_suite_with_a_judge(samples, tmp_path):
    """mmhal's answers are rated; of HallusionBench those that no rule reads."""
    with judge() as endpoint:
        wanted = asking_judge(endpoint, "benchmark=vision_suite", "judge.model=judge")
        assert set(wanted.experiment.benchmark) == VISION | RATED
        run(wanted, tmp_path, samples, stop_after="evaluate.base")
        report = run(wanted, tmp_path, samples)
    values = {(s.benchmark, s.split, s.metric): s for s in report.scores}
    rated = values["mmhal", "all", "rating"]
    assert rated.protocol == "tiny+judge"
    assert 2 < rated.value <= 6
    assert values["hallusionbench", "all", "aAcc"].protocol == "tiny+own.judge"


def test_broken_files_end_the_command_before_anything_is_done(samples, tmp_path, cli):
    root = tmp_path / "root"
    shutil.copytree(samples, root)
    (root / "hallusionbench/hallusion_bench/VD/figure/0_0.png").unlink()
    file = root / "cv_bench/test_3d.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ["+aug=moco", "benchmark=vision_suite", f"data_root={root}", "tracker=none"]
    done = cli(*words, cwd=empty)
    assert done.returncode == 2
    assert "HallusionBench.json: row 1: missing picture" in done.stderr
    assert "test_3d.jsonl: line 12: not JSON" in done.stderr
    assert list(empty.iterdir()) == []
