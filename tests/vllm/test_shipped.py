"""A shipped model as vLLM loads it: from its own folder, with the answers of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.records import Prediction, read_jsonl
from seva_exp.decoding import HfGeneration, VllmGeneration
from seva_exp.models import HubModel
from seva_exp.ship.__main__ import main
from seva_exp.training.spec import DpoTraining

from .test_runs import experiment, run, there

__all__ = ["there"]
pytestmark = pytest.mark.slow


def texts(report, which: str) -> list[tuple[str, str]]:
    file = Path(report.dir) / f"evaluate.{which}.shapes" / "predictions.jsonl"
    return [(one.sample_id, one.text) for one in read_jsonl(file, Prediction)]


def test_a_merged_folder_answers_as_the_run_did(tmp_path):
    options = {
        "samples": 200,
        "benchmark": {"shapes": ShapesBenchmark(images=12)},
        "dpo": DpoTraining(warmup_ratio=0, learning_rate=2e-3),
    }
    aligned = run(tmp_path, experiment(HfGeneration(max_new_tokens=48), **options))
    assert texts(aligned, "aligned") != texts(aligned, "base")
    out = tmp_path / "shipped"
    assert main([aligned.dir, "--merge", "--out", str(out)]) == 0
    served = experiment(
        VllmGeneration(max_new_tokens=48, evaluate=True),
        model=HubModel(path=str(out), pad_to_square=True),
        **options,
    )
    report = run(tmp_path, served, stop_after="evaluate.base.shapes")
    assert texts(report, "base") == texts(aligned, "aligned")
    assert not (tmp_path / "store" / "older_names").exists(), "it was read as it is"
