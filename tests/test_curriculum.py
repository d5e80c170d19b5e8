"""Rounds on new data, with replay, from weak to strong, and with an end (method=curriculum), on the
embedded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seva_exp import InputError, Machine, Options, run
from seva_exp.command.config import parse
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import (
    Answer,
    Pair,
    Prediction,
    Report,
    Sample,
    read_jsonl,
    write_jsonl,
)
from seva_exp.core.store import Store
from seva_exp.experiment.fitting import views_of_round
from seva_exp.experiment.graph import graph
from seva_exp.experiment.stopping import Stopping
from seva_exp.stages import ReplayedPairs
from seva_exp.stages.artifacts import SampleArtifact
from seva_exp.stages.parts import Part

from .command.test_config import composed
from .test_methods import manifest, rows

SMALL = [
    "data.samples=37", "benchmark.shapes.images=6", "benchmark.split=selection", "tracker=none",
    "dpo.warmup_ratio=0", "dpo.lora_rank=4", "+aug=noise_steps", "method=curriculum",
]  # fmt: skip
STOP = "method.curriculum.stop=shapes/pope/accuracy"
VIEWS = ("noise_500", "noise_650", "noise_800")


def go(store: Path, folder: Path, *words: str) -> Report:
    machine = Machine(store=str(store), runs=str(folder / "runs"), progress="off")
    return run(parse(composed(*SMALL, *words)).experiment, machine, Options())


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("curriculum") / "store"


@pytest.fixture(scope="module")
def done(store, tmp_path_factory) -> Report:
    return go(store, tmp_path_factory.mktemp("done"))


def pairs_of(report: Report, label: str) -> list[Pair]:
    return rows(report, f"{label}/pairs.jsonl", Pair)


def test_each_round_asks_a_part_of_its_own_by_one_view_from_weak_to_strong(done):
    ids = [one.id for one in rows(done, "samples/samples.jsonl", Sample)]
    parts = [ids[:12], ids[12:24], ids[24:]]
    for number, (part, view) in enumerate(zip(parts, VIEWS, strict=True), 1):
        for name in ("clean", view):
            said = rows(done, f"answers.{name}.round{number}/answers.jsonl", Answer)
            assert [one.sample_id for one in said] == part
    labels = {stage.name for stage in done.stages}
    assert sum(label.startswith("answers.noise") for label in labels) == 3


def test_a_share_of_each_earlier_round_is_trained_on_again(done):
    new = [pairs_of(done, label) for label in ("pairs.round1", "pairs.new.round2",
                                               "pairs.new.round3")]  # fmt: skip
    for number in (2, 3):
        every = pairs_of(done, f"pairs.round{number}")
        first = len(new[number - 1])
        assert every[:first] == new[number - 1]
        old = every[first:]
        for earlier in new[: number - 1]:
            again = [pair for pair in old if pair in earlier]
            assert len(again) == round(0.33 * len(earlier))
        assert len(old) == sum(round(0.33 * len(earlier)) for earlier in new[: number - 1]) > 0
        made = manifest(done, f"align.round{number}")["summary"]
        assert made["preferences"] == len(every)
        summary = manifest(done, f"pairs.round{number}")["summary"]
        assert (summary["replayed"], summary["kept"]) == (len(old), len(every))
        assert summary["sampled"] == summary["kept"] + sum(summary["dropped"].values())
    assert done.pairs.kept == len(pairs_of(done, "pairs.round3"))


def test_the_report_shows_all_rounds_as_one_curve(done):
    page = (Path(done.dir) / "report.html").read_text()
    assert "shapes, round by round" in page
    accuracy = {
        s.model: s.value for s in done.scores if (s.split, s.metric) == ("pope", "accuracy")
    }
    first, last = accuracy["base"], accuracy["aligned"]
    assert f"from {first:.3g} at round 0 to {last:.3g} at round 3" in page


def test_rounds_end_after_one_without_a_significant_gain(done, store, tmp_path):
    """Six pictures show none: the model of round 1 is the final one."""
    report = go(store, tmp_path, STOP)
    labels = [stage.name for stage in report.stages]
    assert "align.round1" in labels and not any("round2" in label for label in labels)
    assert labels[-2:] == ["evaluate.aligned.shapes", "compare.shapes"]
    assert all(stage.cached for stage in report.stages)
    assert {s.model for s in report.scores} == {"base", "aligned"}
    before = {(s.split, s.metric): s.value for s in done.scores if s.model == "round1"}
    assert before == {(s.split, s.metric): s.value for s in report.scores if s.model == "aligned"}
    why = "Stopped after round 1 of 3: no significant gain on shapes/pope/accuracy"
    assert why in (Path(report.dir) / "report.html").read_text()
    again = go(store, tmp_path / "again", STOP)
    assert [(s.name, s.key) for s in again.stages] == [(s.name, s.key) for s in report.stages]


@pytest.mark.parametrize(
    ("before", "after", "ends"), [(0.0, 1.0, None), (1.0, 0.0, 1), (1.0, 1.0, 1)],
    ids=["gain", "loss", "equal"],
)  # fmt: skip
def test_a_round_with_a_significant_gain_is_not_the_last(done, tmp_path, before, after, ends):
    """On the real predictions, each twice, their scores set."""
    wanted = parse(composed(*SMALL, STOP)).experiment
    stages = {one.label: one for one in graph(wanted, FileDigests(tmp_path))}
    store = Store(tmp_path / "store")
    said = list(read_jsonl(Path(done.dir) / "evaluate.base.shapes/predictions.jsonl", Prediction))
    for label, score in (("evaluate.base.shapes", before), ("evaluate.round1.shapes", after)):
        stage = stages[label]
        folder = store.path(stage.name, stage.key)
        folder.mkdir(parents=True)
        scored = [
            replace(
                p,
                sample_id=f"{p.sample_id}/{k}",
                group=f"{p.group}/{k}",
                score=score,
                counts=p.counts | {"correct": score},
            )
            for p in said
            for k in (1, 2)
        ]
        write_jsonl(folder / "predictions.jsonl", scored)
    stopping = Stopping(wanted, list(stages.values()), store)
    assert stopping.after(stages["evaluate.round1.shapes"]) == ends
    assert stopping.after(stages["evaluate.base.shapes"]) is None
    assert stopping.after(stages["align.round1"]) is None


def test_without_a_curriculum_the_stages_are_those_before(tmp_path):
    plain = [*SMALL[:-2], "+aug=diffusion_noise", "method.rounds=2"]
    found = graph(parse(composed(*plain)).experiment, FileDigests(tmp_path))
    assert not any(isinstance(stage, ReplayedPairs) for stage in found)
    assert not any("part" in stage.spec() for stage in found if stage.name == "answers")


@pytest.mark.parametrize(("count", "of"), [(7, 3), (3, 3), (2, 3), (100, 7)])
def test_parts_are_disjoint_consecutive_and_all(tmp_path, count, of):
    every = SampleArtifact(tmp_path)
    write_jsonl(every.file, [Sample(f"s{i}", None, "?") for i in range(count)])
    parts = [[one.id for one in Part(n, of).samples(every)] for n in range(1, of + 1)]
    assert [id for part in parts for id in part] == [f"s{i}" for i in range(count)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_strongest_view_is_in_the_last_round_and_each_is_asked():
    for rounds in (3, 4, 7):
        words = ["+aug=noise_steps", "method=curriculum", f"method.rounds={rounds}"]
        wanted = parse(composed(*words)).experiment
        asked = [views_of_round(wanted.method, wanted.aug, n)[0] for n in range(1, rounds + 1)]
        assert asked == sorted(asked) and set(asked) == set(VIEWS)


REFUSED = {
    "method.curriculum: with method.rounds=1": ["method=seva", "method.curriculum.data=new"],
    "method.curriculum.replay=0.5: with data=same": [
        "method=seva", "method.rounds=2", "method.curriculum.replay=0.5",
    ],
    "weak_to_strong: 3 views and 2 rounds": ["method.rounds=2"],
    "goes by strength, and aug.moco: kind=moco has none": ["+aug@aug.moco=moco"],
    "weak_to_strong asks one view a round": ["method.negatives=hardest"],
    "weak_to_strong shows one picture a round": ["dpo=lpoi"],
    "no benchmark nothing": ["method.curriculum.stop=nothing/pope/accuracy"],
    "shapes has no metric pope/acuracy": ["method.curriculum.stop=shapes/pope/acuracy"],
    "give BENCHMARK/SPLIT/METRIC": ["method.curriculum.stop=shapes"],
    "benchmark.shapes.split=selection": [STOP, "benchmark.split=all"],
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_fit_is_refused_by_name(said):
    with pytest.raises(InputError, match=said):
        parse(composed(*SMALL, *REFUSED[said]))
