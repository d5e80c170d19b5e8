"""The reference stage: the same numbers as on the way, resumable, once for a sweep over dpo.*."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import seva_exp
from seva_exp import Experiment, Machine, StageError
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import ImageRef, Pair
from seva_exp.core.sharing import Sharing, alive
from seva_exp.data import ShapesData
from seva_exp.experiment.graph import graph
from seva_exp.methods import SevaMethod
from seva_exp.stages import Align
from seva_exp.training import DpoTraining
from seva_exp.training import reference as reference_module
from seva_exp.training.collate import ReferenceLogps
from seva_exp.training.preferences import PairSet
from seva_exp.training.prefetch import Prefetcher
from seva_exp.training.reference import read_reference, score_reference

from .tools import (
    CHOSEN,
    QUESTIONS,
    REJECTED,
    job,
    logprob,
    picture,
    placement,
    preferences,
    tiny,
    train,
)

MACHINE = Machine(progress="off")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        picture(i).save(folder / f"{i}.png")
    return folder


def pairs(root: Path) -> list[Pair]:
    digest = FileDigests(root)
    return [
        Pair(
            f"s{i}", ImageRef(f"{i}.png", digest(root / f"{i}.png")), QUESTIONS[i % 3],
            CHOSEN[i % 3], tuple(REJECTED[i : i + 1 + i % 2]), ("noise",) * (1 + i % 2),
            (), ((),) * (1 + i % 2),
        )
        for i in range(5)
    ]  # fmt: skip


@pytest.mark.parametrize("fast", ["on", "off"])
def test_each_answer_s_log_probability_under_the_base_model(root, tmp_path, fast):
    made = pairs(root)
    vlm = tiny()
    summary = score_reference(
        vlm, PairSet(made, root), fast, placement(tmp_path, train_batch_size=2)
    )
    assert (summary["preferences"], summary["answers"]) == (5, 12)
    assert vlm.model.forward.__func__ is type(vlm.model).forward  # left as it was
    plain = tiny()
    found = read_reference(tmp_path)
    known = [found[pair.sample_id] for pair in made]
    for row, preference in zip(
        known, reference_module.preferences_of(plain, PairSet(made, root)), strict=True
    ):
        answers = (preference.chosen, *preference.rejected)
        for value, answer in zip((row.chosen, *row.rejected), answers, strict=True):
            assert value == pytest.approx(logprob(plain, preference, answer), abs=1e-3)


def test_batches_that_are_made_ahead_are_scored_alike(root, tmp_path, monkeypatch):
    """As with a GPU."""
    made = pairs(root)
    usual, early = (placement(tmp_path / n, train_batch_size=2) for n in ("usual", "early"))
    score_reference(tiny(), PairSet(made, root), "auto", usual)
    asked: list[tuple[str, int]] = []

    def ahead(source, device, depth):
        asked.append((device.type, depth))
        return Prefetcher(source, depth)

    monkeypatch.setattr(reference_module, "ahead", ahead)
    score_reference(tiny(), PairSet(made, root), "auto", early)
    assert asked == [("cpu", reference_module.AHEAD)]
    assert read_reference(early.work) == read_reference(usual.work)


def test_a_killed_stage_goes_on_and_gives_the_same(root, tmp_path, monkeypatch):
    made = pairs(root)
    whole = placement(tmp_path / "whole", train_batch_size=2)
    score_reference(tiny(), PairSet(made, root), "auto", whole)
    place = placement(tmp_path / "cut", train_batch_size=2)
    real, calls = reference_module.scored, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(reference_module, "scored", dies)
    vlm = tiny()
    with pytest.raises(KeyboardInterrupt):
        score_reference(vlm, PairSet(made, root), "auto", place)
    assert vlm.model.get_decoder().config._attn_implementation == "sdpa"  # left as it was
    score_reference(tiny(), PairSet(made, root), "auto", place)
    assert len(calls) == 2 + 2  # of 3 batches the first was kept
    assert read_reference(place.work) == read_reference(whole.work)


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_a_process_that_died_had_is_scored_by_another(root, tmp_path, monkeypatch, ranks):
    """``ranks`` 1: it had taken all three batches, and its first is not scored again."""
    made = pairs(root)
    whole, two = (placement(tmp_path / n, train_batch_size=2) for n in ("whole", "two"))
    score_reference(tiny(), PairSet(made, root), "auto", whole)
    first, second = Sharing(two.work, 0, ranks), Sharing(two.work, 1, ranks)
    first.begin()
    real, calls = reference_module.scored, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(reference_module, "scored", dies)
    parts = two.work / "parts"
    with alive(parts, 0), pytest.raises(KeyboardInterrupt):
        score_reference(tiny(), PairSet(made, root), "auto", two, sharing=first)
    with alive(parts, 1):
        score_reference(tiny(), PairSet(made, root), "auto", two, sharing=second)
    assert len(calls) == 2 + 2
    assert not (two.work / "reference.jsonl").exists(), "that is for whoever knows that all is done"
    ids = [pair.sample_id for pair in made]
    assert reference_module.conclude(two.work, ids, "reference.jsonl") == 5
    written = [(place.work / "reference.jsonl").read_bytes() for place in (whole, two)]
    assert written[0] == written[1]


def test_training_takes_the_reference_that_it_is_given(tmp_path):
    spec = DpoTraining(batch_size=4, epochs=2, learning_rate=1e-3, lora_rank=4)
    vlm = tiny()
    rows = preferences(vlm, 4, (1, 2), (1,))
    base = tiny()
    known = [
        replace(
            row,
            reference=ReferenceLogps(
                logprob(base, row, row.chosen),
                tuple(logprob(base, row, ids) for ids in row.rejected),
                tuple(logprob(base, row, row.chosen, make()) for make in row.images),
            ),
        )
        for row in rows
    ]
    _, given = train(job(vlm, spec, placement(tmp_path / "a")), known)
    vlm = tiny()
    _, found = train(job(vlm, spec, placement(tmp_path / "b")), rows)
    for one, other in zip(given, found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("dtype", "off", "wrong"),
    [("float32", 0.02, True), ("bfloat16", 0.14, False), ("bfloat16", 2.0, True)],
)
def test_a_reference_may_be_off_by_rounding_alone(dtype, off, wrong, tmp_path):
    """Of 150 short answers in bfloat16, one was off by 0.143 nats between the two ways."""
    vlm = tiny(dtype=dtype)
    row = preferences(vlm, 3)[2]
    assert len(row.chosen) == 2
    chosen, rejected = (logprob(vlm, row, ids) for ids in (row.chosen, *row.rejected))
    known = replace(row, reference=ReferenceLogps(chosen - off, (rejected,)))
    spec = DpoTraining(batch_size=1, lora_rank=4)
    with pytest.raises(StageError, match="the reference is wrong") if wrong else nullcontext():
        train(job(vlm, spec, placement(tmp_path)), [known])


def experiment(**dpo) -> Experiment:
    return Experiment(
        aug={"noise": DiffusionNoise(step=800)},
        data=ShapesData(samples=24),
        dpo=DpoTraining(batch_size=8, warmup_ratio=0.0, **dpo),
        benchmark={"shapes": ShapesBenchmark(images=4)},
    )


def stages_of(**changes):
    method = changes.pop("method", SevaMethod())
    one = experiment(**changes).model_copy(update={"method": method})
    found = graph(one, FileDigests(Path("/nowhere")))
    return {stage.label: stage for stage in found}


def test_no_number_of_dpo_is_in_the_key_and_pictures_are():
    one, other = stages_of(beta=0.1), stages_of(beta=0.2, learning_rate=3e-4, loss="ipo")
    assert one["reference"].key == other["reference"].key
    assert one["align"].key != other["align"].key
    assert list(one["align"].inputs) == ["pairs", "samples", "reference"]
    assert stages_of(loss="image")["reference"].key != one["reference"].key
    fast = [stages_of(fast=way)["align"].key for way in ("auto", "on", "off")]
    assert len({*fast}) == 1 and stages_of(fast="off")["reference"].key == one["reference"].key


def test_later_rounds_score_with_the_adapter_that_they_are_held_to():
    def second(reference: str):
        found = stages_of(method=SevaMethod(rounds=2, reference=reference))
        align = found["align.round2"]
        assert isinstance(align, Align)
        return align, found["reference.round2"]

    align, reference = second("previous")
    assert reference.inputs["start"] == align.start
    align, reference = second("base")
    assert "start" not in reference.inputs


def test_a_sweep_over_dpo_scores_the_reference_once(tmp_path):
    machine = MACHINE.model_copy(update={"runs": str(tmp_path)})
    cached = []
    for beta in (0.05, 0.1):
        for rate in (5e-5, 1e-4):
            report = seva_exp.run(experiment(beta=beta, learning_rate=rate), machine)
            cached += [stage.cached for stage in report.stages if stage.name == "reference"]
    assert cached == [False, True, True, True]


def test_rounds_and_the_views_pictures_run(tmp_path):
    machine = MACHINE.model_copy(update={"runs": str(tmp_path)})
    one = experiment(loss={"sigmoid": 1.0, "image": 1.0}).model_copy(
        update={"method": SevaMethod(rounds=2), "benchmark": {}}
    )
    seva_exp.run(one, machine)
    for number in (1, 2):
        [file] = (tmp_path / "latest" / f"reference.round{number}").glob("reference.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert rows and all(len(row["views"]) == 1 for row in rows)
