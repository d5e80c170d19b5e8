"""Folders of finished runs, made without a model: real records, real statistics."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.benchmarks.statistics import deltas, scores
from seva_exp.core.records import (
    Answer,
    ImageRef,
    PairCounts,
    Prediction,
    Report,
    Sample,
    StageResult,
    write_jsonl,
)

MakeRun = Callable[..., Path]
PICTURES = 60


def predictions(right: float, seed: str) -> list[Prediction]:
    """Yes-or-no answers of which about this share is right."""
    rng = random.Random(seed)
    found = []
    for i in range(PICTURES * 2):
        hit = float(rng.random() < right)
        counts = {"asked": 1.0, "correct": hit, "f1_below": 2.0, "twice_hits": 2 * hit, "yes": 1.0}
        text = "yes" if hit else "no"
        row = (f"q{i}", f"picture{i // 2}", "pope_random", f"Is there {i}?", text, text, "yes")
        found.append(Prediction(*row, hit, counts))
    return found


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run("a", seed=1, right=0.9, aug={"moco": {...}})`` -> the run's folder."""

    def make(
        name: str,
        seed: int = 0,
        right: float = 0.8,
        questions: int = PICTURES * 2,
        protocol: str = "seva_exp-shapes-v1",
        said: str = "a blue <ring>",
        dropped: int = 4,
        align: str = "",
        **config: object,
    ) -> Path:
        folder = tmp_path / "runs" / name
        values = {
            "seed": seed,
            "name": name,
            "machine": {"runs": "runs"},
            "data": {"kind": "shapes", "samples": 2},
            "aug": {"moco": {"kind": "moco"}},
            "benchmark": {"shapes": {"kind": "shapes", "images": 9}},
        } | config
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(values))
        models = {
            "base": predictions(0.6, "base")[:questions],
            "aligned": predictions(right, f"{name}{seed}")[:questions],
        }
        for model, rows in models.items():
            (folder / f"evaluate.{model}.shapes").mkdir()
            write_jsonl(folder / f"evaluate.{model}.shapes" / "predictions.jsonl", rows)
        metrics = ShapesBenchmark().metrics
        found = [
            score
            for model, rows in models.items()
            for score in scores(metrics, rows, model=model, benchmark="shapes", protocol=protocol)
        ]
        views = list(values["aug"])
        _answers(folder, views, said)
        stages = ["samples", "answers.clean", *(f"answers.{view}" for view in views), "pairs"]
        stages += ["align"] * bool(align)
        keys = {"align": align, "samples": "s", "answers.clean": "c", "pairs": f"p{dropped}{views}"}
        report = Report(
            key=name,
            name=name,
            seed=seed,
            dir=str(folder),
            stages=tuple(StageResult(s, keys.get(s, f"{s}{said}"), False, 1.5) for s in stages),
            pairs=PairCounts(10, 10 - dropped, {"equal": dropped}),
            scores=tuple(found),
            deltas=tuple(deltas(metrics, models["base"], models["aligned"], benchmark="shapes")),
        )
        (folder / "report.json").write_text(json.dumps(report.to_json()))
        (folder / "report.html").write_text("<p>its page</p>")
        steps = [{"stage": "align", "step": i, "loss": 0.7 - i / 50 * right} for i in range(1, 9)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
        return folder

    return make


def _answers(folder: Path, views: list[str], said: str) -> None:
    pictures = folder / "samples" / "images"
    pictures.mkdir(parents=True)
    ids = ["s0", "s1"]
    for id in ids:
        Image.new("RGB", (72, 72), "navy").save(pictures / f"{id}.png")
    samples = [Sample(id, ImageRef(f"{id}.png", "-"), "What is it?") for id in ids]
    write_jsonl(folder / "samples" / "samples.jsonl", samples)
    for view in ("clean", *views):
        text = "a red <ring>" if view == "clean" else said
        previews = folder / f"answers.{view}" / "previews"
        previews.mkdir(parents=True)
        rows = [Answer(id, view, "What is it?", text, (), "eos") for id in ids]
        write_jsonl(previews.parent / "answers.jsonl", rows)
        if view != "clean":
            Image.new("RGB", (72, 72), "maroon").save(previews / "0.png")
            index = [{"sample_id": id, "file": "0.png"} for id in ids]
            (previews / "index.json").write_text(json.dumps(index))
