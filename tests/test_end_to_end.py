"""The whole pipeline on the embedded model, by behaviour: cached, shared, repeatable."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import DiffusionNoise, HorizontalFlip, Moco
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.records import Pair, Prediction, read_jsonl
from seva_exp.core.store import Manifest, Store
from seva_exp.data import FolderData, ShapesData
from seva_exp.decoding import HfGeneration
from seva_exp.experiment import run
from seva_exp.runs.events import Listener
from seva_exp.training import DpoTraining

SAMPLES, IMAGES = 24, 6


def small(**changes) -> Experiment:
    values = {
        "aug": {"diffusion_noise": DiffusionNoise(step=600)},
        "data": ShapesData(samples=SAMPLES),
        "dpo": DpoTraining(warmup_ratio=0.0),
        "benchmark": {"shapes": ShapesBenchmark(images=IMAGES)},
    }
    return Experiment(**(values | changes))


def machine(folder: Path, store: Path | None = None, **changes) -> Machine:
    return Machine(store=str(store or folder / "store"), runs=str(folder / "runs"), **changes)


def go(experiment: Experiment, folder: Path, store: Path | None = None, **changes):
    options = Options(**{k: changes.pop(k) for k in list(changes) if k in Options.model_fields})
    return run(experiment, machine(folder, store, progress="off", **changes), options)


def cached(report) -> dict[str, bool]:
    return {stage.name: stage.cached for stage in report.stages}


def files(report, *names: str) -> dict[str, bytes]:
    return {name: (Path(report.dir) / name).read_bytes() for name in names}


ARTIFACTS = (
    "pairs.jsonl",
    "pairs/drops.jsonl",
    "answers.clean/answers.jsonl",
    "answers.diffusion_noise/answers.jsonl",
    "evaluate.base.shapes/predictions.jsonl",
    "evaluate.aligned.shapes/predictions.jsonl",
)


@pytest.fixture(scope="module")
def first(tmp_path_factory, shared_store):
    """One undisturbed run that several tests compare with."""
    return go(small(), tmp_path_factory.mktemp("first"), shared_store)


def test_a_run_generates_aligns_and_measures_before_and_after(first):
    pairs = list(read_jsonl(Path(first.dir) / "pairs.jsonl", Pair))
    assert first.pairs.sampled == SAMPLES
    assert first.pairs.kept == len(pairs) > 0
    assert first.pairs.kept + sum(first.pairs.dropped.values()) == SAMPLES
    assert all(pair.chosen != pair.rejected[0] for pair in pairs)
    assert {(s.model, s.metric) for s in first.scores} >= {
        (model, metric)
        for model in ("base", "aligned")
        for metric in ("accuracy", "mean", "chair_i", "chair_s", "recall", "words")
    }
    for score in first.scores:
        assert score.low <= score.value <= score.high
        assert score.n > 0
        assert score.protocol
    for delta in first.deltas:
        assert delta.low <= delta.value <= delta.high
        assert 0 < delta.p <= 1


def test_the_first_logged_loss_is_ln_2(first):
    rows = [json.loads(r) for r in (Path(first.dir) / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["stage"] == "align"
    assert rows[0]["step"] == 1
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)


def test_the_report_follows_its_contract(first):
    report = json.loads((Path(first.dir) / "report.json").read_text())
    assert {"key", "name", "seed", "stages", "pairs", "scores", "deltas"} <= set(report)
    cost = {"answers", "steps"}
    assert set(report["stages"][0]) == {"name", "key", "cached", "seconds", *cost}
    assert set(report["pairs"]) == {"sampled", "kept", "dropped"}
    columns = {"model", "benchmark", "split", "metric", "value", "low", "high", "n", "protocol"}
    assert columns <= set(report["scores"][0])
    assert {"benchmark", "split", "metric", "value", "low", "high", "p"} <= set(report["deltas"][0])


def test_the_run_folder_holds_readable_links(first):
    folder = Path(first.dir)
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert (folder / "samples" / "images").is_dir()
    assert (folder.parent / "latest").resolve() == folder.resolve()
    for stage in first.stages:
        manifest = Manifest(**json.loads((folder / stage.name / "manifest.json").read_text()))
        assert manifest.key == stage.key
        assert manifest.environment["packages"]["torch"]


def test_the_same_command_again_computes_nothing_and_reports_the_same(
    first, tmp_path, shared_store
):
    again = go(small(), tmp_path, shared_store)
    assert all(cached(again).values())
    assert (again.scores, again.deltas, again.pairs) == (first.scores, first.deltas, first.pairs)
    assert files(again, "metrics.jsonl") == files(first, "metrics.jsonl")


def test_the_same_seed_in_an_empty_store_gives_the_same_result(first, tmp_path):
    fresh = go(small(), tmp_path)
    assert not any(cached(fresh).values())
    assert files(fresh, *ARTIFACTS) == files(first, *ARTIFACTS)
    assert (fresh.scores, fresh.deltas) == (first.scores, first.deltas)


def test_another_seed_gives_another_result_but_the_same_base_evaluation(
    first, tmp_path, shared_store
):
    other = go(small(seed=1), tmp_path, shared_store, stop_after="pairs")
    assert files(other, "pairs.jsonl") != files(first, "pairs.jsonl")
    base = go(small(seed=1), tmp_path, shared_store, stop_after="evaluate.base")
    assert cached(base) == {"evaluate.base.shapes": True}


@pytest.mark.parametrize("batch_size", [1, 32])
def test_the_batch_size_changes_no_pair(first, tmp_path, batch_size):
    report = go(small(), tmp_path, stop_after="pairs", batch_size=batch_size)
    names = ARTIFACTS[:4]
    assert files(report, *names) == files(first, *names)


def test_stop_after_computes_only_what_the_stage_needs(tmp_path, shared_store, first):
    report = go(small(), tmp_path, shared_store, stop_after="pairs")
    assert set(cached(report)) == {"samples", "answers.clean", "answers.diffusion_noise", "pairs"}
    assert report.scores == ()


def test_force_computes_a_stage_and_what_follows_anew(first, tmp_path, shared_store):
    report = go(small(), tmp_path, shared_store, force=("align",))
    anew = {name for name, was_cached in cached(report).items() if not was_cached}
    assert anew == {"align", "evaluate.aligned.shapes", "compare.shapes"}
    assert report.scores == first.scores


def test_two_views_give_two_rejected_answers(first, tmp_path, shared_store):
    views = {"diffusion_noise": DiffusionNoise(step=600), "moco": Moco()}
    report = go(small(aug=views), tmp_path, shared_store)
    state = cached(report)
    assert state["answers.clean"]
    assert state["answers.diffusion_noise"]
    assert state["evaluate.base.shapes"]
    assert "answers.moco" in state
    pairs = list(read_jsonl(Path(report.dir) / "pairs.jsonl", Pair))
    assert {pair.views for pair in pairs} >= {("diffusion_noise", "moco")}
    assert all(len(pair.views) == len(pair.rejected) for pair in pairs)
    rows = (Path(report.dir) / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == math.ceil(len(pairs) / 16), "a step takes 16 prompts, whatever their K"


def test_where_no_pair_is_left_nothing_is_aligned_and_the_rest_is_reported(tmp_path):
    # A picture that is its own mirror image gives equal answers.
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, color in enumerate(("red", "green")):
        Image.new("RGB", (72, 72), color).save(folder / f"{i}.png")
    experiment = small(
        aug={"flip": HorizontalFlip(probability=1.0)}, data=FolderData(path=str(folder))
    )
    report = go(experiment, tmp_path)
    assert (report.pairs.kept, report.pairs.dropped) == (0, {"equal": 2})
    assert {s.model for s in report.scores} == {"base"}
    assert "align" not in cached(report)
    assert (Path(report.dir) / "report.json").is_file()
    again = go(experiment, tmp_path)
    assert all(cached(again).values())


def test_an_unknown_stage_is_named(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'pairs'"):
        go(small(), tmp_path, stop_after="pear")


def test_a_view_under_another_name_shares_its_answers_and_keeps_its_name(
    first, tmp_path, shared_store
):
    views = {"mild": DiffusionNoise(step=600), "again": DiffusionNoise(step=600)}
    report = go(small(aug=views), tmp_path, shared_store)
    assert cached(report)["answers.mild"]
    pairs = list(read_jsonl(Path(report.dir) / "pairs.jsonl", Pair))
    assert {pair.views for pair in pairs} == {("again", "mild")}


def test_a_benchmark_under_another_name_keeps_its_name(first, tmp_path, shared_store):
    benchmarks = {"shapes": ShapesBenchmark(images=IMAGES), "twin": ShapesBenchmark(images=IMAGES)}
    report = go(small(benchmark=benchmarks), tmp_path, shared_store)
    assert all(cached(report).values())
    values = {name: [s.value for s in report.scores if s.benchmark == name] for name in benchmarks}
    assert values["shapes"] == values["twin"] != []
    assert {d.benchmark for d in report.deltas} == set(benchmarks)


def test_another_number_format_is_told(first, tmp_path, shared_store):
    told = []

    class Ears(Listener):
        def warned(self, text: str) -> None:
            told.append(text)

    run(small(), machine(tmp_path, shared_store, dtype="bfloat16"), listeners=[Ears()])
    assert any("answers.clean was made in float32" in text for text in told)


def test_damage_to_a_finished_artifact_is_seen_and_mended(tmp_path):
    report = go(small(), tmp_path, stop_after="pairs")
    answers = Path(report.dir) / "answers.clean" / "answers.jsonl"
    whole = answers.read_bytes()
    answers.write_bytes(whole[: len(whole) // 2])
    again = go(small(), tmp_path, stop_after="pairs")
    assert cached(again) == {
        "samples": True,
        "answers.clean": False,
        "answers.diffusion_noise": True,
        "pairs": True,
    }
    assert (Path(again.dir) / "answers.clean" / "answers.jsonl").read_bytes() == whole


SWEEP = (
    "-m +aug=diffusion_noise aug.diffusion_noise.step=600,800 dpo.beta=0.05,0.1 "
    "data.samples=10 benchmark.shapes.images=2 tracker=none dpo.warmup_ratio=0"
)


def test_a_sweep_computes_each_shared_stage_once(cli, tmp_path):
    done = cli(*SWEEP.split())
    assert done.returncode == 0, done.stderr
    reports = [
        json.loads(file.read_text()) for file in sorted((tmp_path / "runs").glob("2*/report.json"))
    ]
    assert len(reports) == 4
    made: dict[str, int] = {}
    for report in reports:
        for stage in report["stages"]:
            made[stage["name"]] = made.get(stage["name"], 0) + (not stage["cached"])
    assert made == {
        "samples": 1,
        "answers.clean": 1,
        "answers.diffusion_noise": 2,
        "pairs": 2,
        "evaluate.base.shapes": 1,
        "reference": 2,
        "align": 4,
        "evaluate.aligned.shapes": 4,
        "compare.shapes": 4,
    }
    assert len({report["key"] for report in reports}) == 4


RUN = [
    "+aug=diffusion_noise", "aug.diffusion_noise.step=600", f"data.samples={SAMPLES}",
    f"benchmark.shapes.images={IMAGES}", "tracker=none", "dpo.warmup_ratio=0",
    "machine.batch_size=4",
]  # fmt: skip


def test_predictions_keep_prompt_text_target_and_score(first):
    predictions = list(
        read_jsonl(Path(first.dir) / "evaluate.base.shapes" / "predictions.jsonl", Prediction)
    )
    assert {p.group for p in predictions} == {f"{i:06d}" for i in range(IMAGES)}
    assert all(p.prompt and p.target for p in predictions)


def test_answers_that_were_cut_are_counted(tmp_path):
    report = go(
        small(generation=HfGeneration(max_new_tokens=2)), tmp_path, stop_after="answers.clean"
    )
    stage = report.stages[-1]
    manifest = Store(tmp_path / "store").find("answers", stage.key)
    assert manifest.summary["cut_at_max_new_tokens"] > 0


def test_the_default_tracker_leaves_one_finished_offline_run(cli, tmp_path, shared_store, first):
    words = [word for word in RUN if not word.startswith(("tracker", "machine."))]
    done = cli(*words, f"machine.store={shared_store}")
    assert done.returncode == 0, done.stderr
    assert "W&B: offline" in done.stderr + done.stdout
    (file,) = (tmp_path / "runs" / "latest" / "wandb").glob("offline-run-*/*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    inspect = [str(wandb), "leet", "inspect", "--json", str(file)]
    rows = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout
    kinds = {json.loads(line)["type"] for line in rows.splitlines()}
    assert {"run", "history", "summary", "exit"} <= kinds
    assert first.key[:16] in rows
    assert "benchmark/shapes/pope/accuracy/aligned" in rows
    again = cli(*words, f"machine.store={shared_store}")
    assert "already complete" in again.stderr + again.stdout
    assert not (tmp_path / "runs" / "latest" / "wandb").exists()
