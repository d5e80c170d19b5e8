"""The methods on the embedded model: STIC's two stages, several negatives."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import (
    BadPrompt,
    Blend,
    Byol,
    ColorJitter,
    DiffusionNoise,
    LowResolution,
    Moco,
    PlainPrompt,
)
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core import progress
from seva_exp.core.records import Answer, Pair, Sample, read_jsonl
from seva_exp.data import FolderData, InstructData, ShapesData, ShapesInstructData
from seva_exp.decoding import HfGeneration
from seva_exp.experiment import run
from seva_exp.experiment.graph import graph
from seva_exp.inputs.prompts import load_prompts
from seva_exp.inputs.views import PromptDraw, ViewDraw
from seva_exp.methods import SevaMethod, SticMethod
from seva_exp.preferences.filters import DownSampleFilter, EqualFilter
from seva_exp.training import DpoTraining, SftTraining

TINY = load_prompts("tiny")
STIC_VIEWS = {
    "bad_prompt": BadPrompt(prompts="tiny"),
    "low_resolution": LowResolution(),
    "color_jitter": ColorJitter(brightness=0.5, hue=0.3),
}
STIC_LOSS = {"sigmoid": 1.0, "chosen_nll": 1 / 1024}


def small(**changes) -> Experiment:
    values = {
        "aug": {"diffusion_noise": DiffusionNoise(step=700)},
        "data": ShapesData(samples=24),
        "dpo": DpoTraining(learning_rate=1e-3, warmup_ratio=0.0),
        "benchmark": {"shapes": ShapesBenchmark(images=3)},
    }
    return Experiment(**(values | changes))


def stic(**changes) -> Experiment:
    values = {
        "method": SticMethod(
            prompts="tiny", weights={"bad_prompt": 2, "low_resolution": 1, "color_jitter": 1}
        ),
        "aug": STIC_VIEWS,
        "filters": (),
        "dpo": DpoTraining(learning_rate=1e-3, loss=STIC_LOSS),
    }
    return small(**(values | changes))


def go(experiment: Experiment, folder: Path, store: Path, **options):
    machine = Machine(store=str(store), runs=str(folder / "runs"), progress="off")
    return run(experiment, machine, Options(**options))


def rows(report, file: str, kind):
    return list(read_jsonl(Path(report.dir) / file, kind))


def manifest(report, label: str) -> dict:
    return json.loads((Path(report.dir) / label / "manifest.json").read_text())


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, shared_store):
    """STIC, both stages."""
    experiment = stic(
        instructions=ShapesInstructData(samples=16),
        sft=SftTraining(learning_rate=1e-3, batch_size=8),
    )
    return go(experiment, tmp_path_factory.mktemp("stic"), shared_store)


def test_progress_bears_the_name_of_the_stage(tuned, tmp_path, shared_store, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    experiment = stic(
        instructions=ShapesInstructData(samples=16),
        sft=SftTraining(learning_rate=1e-3, batch_size=8),
    )
    machine = Machine(
        store=str(shared_store), runs=str(tmp_path / "runs"), progress="lines", batch_size=4
    )
    stage = "answers.instructions"
    run(experiment, machine, Options(stop_after=stage, force=(stage,)))
    said = capsys.readouterr().err
    assert f"  {stage}: " in said
    assert "answers.clean" not in said


def test_stic_prefers_the_careful_answer_and_trains_on_the_plain_prompt(tuned):
    samples = {s.id: s for s in rows(tuned, "samples/samples.jsonl", Sample)}
    clean = {a.sample_id: a for a in rows(tuned, "answers.clean/answers.jsonl", Answer)}
    assert {s.prompt for s in samples.values()} <= set(TINY.plain)
    assert {a.asked for a in clean.values()} <= set(TINY.careful)
    pairs = rows(tuned, "pairs/pairs.jsonl", Pair)
    assert len(pairs) == len(samples) == 24, "nothing is filtered"
    for pair in pairs:
        assert pair.prompt == samples[pair.sample_id].prompt
        assert pair.chosen == clean[pair.sample_id].text
        assert len(pair.rejected) == 1


def test_any_method_asks_for_descriptions_alone_where_it_is_given_prompts(tmp_path, shared_store):
    described = small(method=SevaMethod(prompts="tiny"))
    folder = go(described, tmp_path, shared_store, stop_after="pairs")
    samples = rows(folder, "samples/samples.jsonl", Sample)
    assert {sample.prompt for sample in samples} <= set(TINY.plain)
    for view in ("clean", "diffusion_noise"):
        asked = [a.asked for a in rows(folder, f"answers.{view}/answers.jsonl", Answer)]
        assert asked == [sample.prompt for sample in samples]
    with pytest.raises(InputError, match=r"method\.prompts=tinny: no such prompt set"):
        run(small(method=SevaMethod(prompts="tinny")), Machine(runs=str(tmp_path)))


def test_each_sample_is_asked_by_one_view_alone(tuned):
    asked: Counter = Counter()
    samples = {s.id: s for s in rows(tuned, "samples/samples.jsonl", Sample)}
    for view in STIC_VIEWS:
        for answer in rows(tuned, f"answers.{view}/answers.jsonl", Answer):
            asked[answer.sample_id] += 1
            plain = samples[answer.sample_id].prompt
            assert (answer.asked in TINY.bad) if view == "bad_prompt" else answer.asked == plain
    assert asked == Counter(samples.keys())
    by_id = {p.sample_id: p.views for p in rows(tuned, "pairs/pairs.jsonl", Pair)}
    draw = ViewDraw((("bad_prompt", 2), ("color_jitter", 1), ("low_resolution", 1)))
    assert all(views == (draw(0, id),) for id, views in by_id.items())


def test_the_manifest_records_the_prompts_that_were_used(tuned):
    spec = manifest(tuned, "answers.clean")["spec"]
    assert spec["asking"]["texts"] == list(TINY.careful)
    assert manifest(tuned, "samples")["spec"]["plain"]["texts"] == list(TINY.plain)


def test_stage_2_infuses_the_descriptions_of_the_stage_1_model(tuned):
    said = {a.sample_id: a for a in rows(tuned, "answers.instructions/answers.jsonl", Answer)}
    asked = {s.id: s for s in rows(tuned, "instructions/samples.jsonl", Sample)}
    infused = rows(tuned, "infuse/instructions.jsonl", Sample)
    assert len(infused) == 16
    for sample in infused:
        description, question = said[sample.id].text, asked[sample.id].prompt
        assert said[sample.id].asked in TINY.plain
        assert sample.prompt == f"Image description: {description} {question}"
        assert sample.response == asked[sample.id].response != ""
    assert manifest(tuned, "answers.instructions")["inputs"]["align"]
    inputs = manifest(tuned, "finetune")["inputs"]
    assert inputs["align"] == manifest(tuned, "align")["key"]


def test_the_run_measures_base_stage_1_and_the_final_model(tuned):
    assert {s.model for s in tuned.scores} == {"base", "stage1", "aligned"}
    assert {d.model for d in tuned.deltas} == {"stage1", "aligned"}
    assert tuned.deltas[0].model == "aligned"
    folder = Path(tuned.dir)
    final = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    assert final == (folder / "finetune/adapter/adapter_model.safetensors").read_bytes()
    assert final != (folder / "align/adapter/adapter_model.safetensors").read_bytes()
    stages = {json.loads(r)["stage"] for r in (folder / "metrics.jsonl").read_text().splitlines()}
    assert stages == {"align", "finetune"}


def test_a_picture_that_is_asked_twice_gives_stic_one_pair(tmp_path, shared_store):
    from PIL import Image

    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        Image.new("RGB", (72, 72), color).save(tmp_path / f"{name}.png")
    experiment = stic(data=FolderData(path=str(tmp_path)), benchmark={})
    done = go(experiment, tmp_path / "out", shared_store, stop_after="samples")
    assert [s.id for s in rows(done, "samples/samples.jsonl", Sample)] == ["a.png", "b.png"]
    assert manifest(done, "samples")["summary"]["asked_already"] == 1
    drops = (Path(done.dir) / "samples/drops.jsonl").read_text()
    assert "picture asked already" in drops
    assert "as a.png" in drops


def test_all_negatives_reject_or_one_that_is_drawn(tmp_path, shared_store):
    views = {"diffusion_noise": DiffusionNoise(step=700), "moco": Moco()}
    every = small(aug=views, filters=())
    one = small(aug=views, filters=(), method=SevaMethod(negatives="one", weights={"moco": 9}))
    pairs = {}
    for name, experiment in (("all", every), ("one", one)):
        done = go(experiment, tmp_path / name, shared_store, stop_after="pairs")
        pairs[name] = rows(done, "pairs/pairs.jsonl", Pair)
    assert all(pair.views == ("diffusion_noise", "moco") for pair in pairs["all"])
    drawn = Counter(view for pair in pairs["one"] for view in pair.views)
    assert drawn.total() == len(pairs["one"]) == 24
    assert drawn["moco"] > drawn["diffusion_noise"]


def test_fine_tuning_goes_on_from_the_aligned_model(tmp_path, shared_store):
    """At a learning rate of nearly 0 it ends where it began."""
    experiment = stic(
        instructions=ShapesInstructData(samples=16),
        sft=SftTraining(learning_rate=1e-12, batch_size=8),
        benchmark={},
    )
    done = go(experiment, tmp_path, shared_store)
    aligned, tuned = (
        load_file(Path(done.dir) / stage / "adapter/adapter_model.safetensors")
        for stage in ("align", "finetune")
    )
    assert aligned.keys() == tuned.keys()
    for name, weight in aligned.items():
        assert torch.allclose(weight, tuned[name], atol=1e-7), name


def labels_changed(one: Experiment, other: Experiment) -> set[str]:
    keys = {stage.label: stage.key for stage in graph(one, lambda path: "0")}
    return {s.label for s in graph(other, lambda path: "0") if keys.get(s.label) != s.key}


TUNED = {"finetune", "evaluate.aligned.shapes", "compare.shapes"}
STAGE_1 = TUNED | {
    "pairs", "reference", "align", "evaluate.stage1.shapes", "compare.stage1.shapes",
    "answers.instructions", "infuse",
}  # fmt: skip
DRAWN = {f"answers.{view}" for view in STIC_VIEWS}
CHANGES = [
    ({"sft": SftTraining(learning_rate=1e-9)}, TUNED),
    ({"instructions": ShapesInstructData(samples=3)},
     TUNED | {"instructions", "answers.instructions", "infuse"}),
    ({"method": {"infusion": "{question} {description}"}}, TUNED | {"infuse"}),
    ({"method": {"description": "careful"}}, TUNED | {"answers.instructions", "infuse"}),
    ({"method": {"newlines": "delete"}}, STAGE_1),
    ({"method": {"weights": {"bad_prompt": 5}}}, STAGE_1 | DRAWN),
    ({"method": {"negatives": "all"}}, STAGE_1 | DRAWN),
    ({"filters": (EqualFilter(),)}, STAGE_1),
    ({"dpo": DpoTraining(loss="sigmoid")}, STAGE_1 - {"pairs", "reference"}),
    ({"generation": HfGeneration(temperature=0.5)},
     STAGE_1 | DRAWN | {"answers.clean"}),
    ({"seed": 1}, STAGE_1 | DRAWN | {"samples", "instructions", "answers.clean"}),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=[str(c)[:40] for c, _ in CHANGES])
def test_a_change_makes_those_stages_new_that_depend_on_it(change, expected):
    before = stic(sft=SftTraining(), generation=HfGeneration())
    if isinstance(change.get("method"), dict):
        change = {"method": before.method.model_copy(update=change["method"])}
    after = before.model_copy(update=change)
    unknown = labels_changed(before, after) ^ expected
    assert not unknown


def test_the_seed_is_in_a_key_where_something_is_drawn():
    def key(seed: int, label: str, **changes) -> str:
        stages = graph(small(seed=seed, data=data, **changes), lambda path: "0")
        return next(stage.key for stage in stages if stage.label == label)

    data = FolderData(path=None)  # all of it: nothing is drawn
    assert key(0, "samples") == key(1, "samples")
    assert key(0, "answers.clean") == key(1, "answers.clean")
    assert key(0, "pairs", aug={"x": PlainPrompt()}, filters=(DownSampleFilter(count=3),)) != key(
        1, "pairs", aug={"x": PlainPrompt()}, filters=(DownSampleFilter(count=3),)
    )
    sampled = HfGeneration(temperature=0.5)
    assert key(0, "answers.clean", generation=sampled) != key(
        1, "answers.clean", generation=sampled
    )
    method = SticMethod(prompts="tiny")
    assert key(0, "samples", method=method) != key(1, "samples", method=method)


def test_the_pictures_that_a_loss_looks_at_are_in_its_key():
    def align(step: int, loss: str):
        views = {"diffusion_noise": DiffusionNoise(step=step)}
        stages = graph(small(aug=views, dpo=DpoTraining(loss=loss)), lambda path: "0")
        return next(stage for stage in stages if stage.label == "align").spec()["pictures"]

    assert align(300, "image") != align(400, "image")
    assert align(300, "sigmoid") == align(400, "sigmoid") == {}


def test_a_loss_with_pictures_runs_whole(tmp_path, shared_store):
    """Noise, and a view that needs another picture of the data."""
    views = {"diffusion_noise": DiffusionNoise(step=700), "blend": Blend()}
    loss = {"sigmoid": 1.0, "image": 1.0, "anchor": 1.0}
    experiment = small(aug=views, dpo=DpoTraining(loss=loss), benchmark={})
    done = go(experiment, tmp_path, shared_store)
    row = first_step(done, "align")
    assert row["loss/image"] > 0
    assert row["loss/anchor"] == pytest.approx(math.log(2), abs=1e-4)


def first_step(report, stage: str) -> dict:
    lines = (Path(report.dir) / "metrics.jsonl").read_text().splitlines()
    return next(row for row in map(json.loads, lines) if row["stage"] == stage)


WRONG = [
    (lambda: small(sft=SftTraining()), "method=stic"),
    (
        lambda: small(aug={"x": BadPrompt()}, dpo=DpoTraining(loss={"image": 1.0})),
        "no source of rejected answers has that",
    ),
    (lambda: SticMethod(infusion="{description}"), "{question}"),
    (lambda: small(aug={"instructions": Moco()}), "aug.instructions"),
    (lambda: stic(sft=SftTraining(), instructions=FolderData(path="x")), "gives no responses"),
    (lambda: SevaMethod(rounds=0), "rounds"),
    (lambda: SevaMethod(weights={"moco": -1}), "moco"),
]


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said.replace("{", r"\{")):
        make()


def test_a_weight_of_no_view_is_refused_and_that_of_a_removed_one_is_not():
    with pytest.raises(InputError, match="Did you mean 'diffusion_noise'"):
        small(method=SevaMethod(weights={"difusion_noise": 2})).check_views()
    small(method=SevaMethod(weights={"color_jitter": 2})).check_views()


def test_stage_2_needs_instruction_data():
    data = FolderData(path="/tmp")
    assert "instructions" in stic(data=data, sft=SftTraining()).lacking()[0]
    assert stic(sft=SftTraining()).lacking() == []
    assert stic(data=data).lacking() == []
    asked = stic(sft=SftTraining(), instructions=InstructData(samples=5))
    assert "instructions.path" in asked.lacking()[0], "what was asked for is not replaced"


def test_a_view_of_weight_0_is_not_asked_and_its_fields_are_in_no_key():
    def one(side: int, **weights: float) -> Experiment:
        views = STIC_VIEWS | {"low_resolution": LowResolution(side=side)}
        return stic(aug=views, method=SticMethod(prompts="tiny", weights=weights))

    zero = {"low_resolution": 0}
    stages = graph(one(20, **zero), lambda path: "0")
    answers = [s.label for s in stages if s.label.startswith("answers")]
    assert answers == ["answers.clean", "answers.bad_prompt", "answers.color_jitter"]
    assert one(20, **zero).title == "stic_bad_prompt+color_jitter"
    keys = [graph(one(side, **zero), lambda path: "0")[-1].key for side in (20, 40)]
    assert keys[0] == keys[1]
    with pytest.raises(InputError, match="none would be asked"):
        one(20, bad_prompt=0, low_resolution=0, color_jitter=0).check_views()


def test_a_view_of_a_small_weight_is_asked_as_often_as_it_says():
    """0 alone is never asked."""
    weights = {"byol": 0.5, "moco": 0.25, "simclr": 1e-9, "pad": 0.0}
    method = SevaMethod(negatives="one", weights=weights)
    assert method.active_views(weights) == ["byol", "moco", "simclr"]
    draw = method.draw(weights)
    assert dict(draw.views) == {"byol": 0.5, "moco": 0.25, "simclr": 1e-9}
    found = Counter(draw(0, f"s{i}") for i in range(3000))
    assert found["byol"] / 3000 == pytest.approx(2 / 3, abs=0.03)
    assert found["moco"] / 3000 == pytest.approx(1 / 3, abs=0.03)
    views = {"byol": Byol(), "moco": Moco()}
    weak = small(aug=views, method=SevaMethod(negatives="one", weights={"byol": 0.5, "moco": 0.2}))
    labels = {stage.label for stage in graph(weak, lambda path: "0")}
    assert {"answers.byol", "answers.moco"} <= labels


def test_drawing_depends_on_seed_and_sample_alone_and_follows_the_weights():
    draw = ViewDraw((("a", 2.0), ("b", 1.0), ("c", 1.0)))
    ids = [f"s{i}" for i in range(4000)]
    drawn = [draw(0, id) for id in ids]
    assert drawn == [draw(0, id) for id in ids]
    assert drawn != [draw(1, id) for id in ids]
    shares = {name: n / 4000 for name, n in Counter(drawn).items()}
    assert shares == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25}, abs=0.03)
    asking = PromptDraw("p", ("x", "y"))
    assert Counter(asking(0, id) for id in ids)["x"] / 4000 == pytest.approx(0.5, abs=0.03)
    assert [asking(0, i) for i in ids] != [PromptDraw("q", ("x", "y"))(0, i) for i in ids]
