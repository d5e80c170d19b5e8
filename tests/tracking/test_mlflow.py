"""MLflow, as its own client sees it: the same names and numbers as W&B, once.

Needs the extra ``mlflow``, which brings fifty packages: in an environment of its own
(CONTRIBUTING.md), where the database's tables take some seconds.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from PIL import Image
from pydantic import ValidationError

from seva_exp.core.records import Score
from seva_exp.tracking import MlflowTracker
from seva_exp.tracking.mlflow_sink import MlflowSink

from .played import ROWS, STAGES, a_plan, an_outcome, play

TRACKER = MlflowTracker(project="proj", tags=("a",), group="g")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("mlruns", "is none that MLflow keeps runs in"),
        ("file:///tmp/mlruns", "sqlite:///FILE.db"),
        ("sqlite://", "is none that MLflow keeps runs in"),
        ("http://", "http\\(s\\)://HOST:PORT"),
        ("http://localhost:port", "is no address"),
        ("https://me:secret@host", "\\$MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_an_address_that_is_none_is_refused(uri: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        MlflowTracker(uri=uri)


def test_a_server_that_does_not_answer_costs_seconds(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    play(
        a_plan(tmp_path / "run"), tmp_path / "store", MlflowTracker(uri=f"http://127.0.0.1:{port}")
    )
    assert time.monotonic() - began < 60
    said = capfd.readouterr().err
    assert said.startswith(f"MLflow: not tracked (127.0.0.1:{port} does not answer; once it does")
    assert said.count("\n") == 1


def test_a_login_is_neither_noted_nor_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:SECRET-FOUR@127.0.0.1:9")
    sink = MlflowSink(MlflowTracker(), tmp_path)
    assert sink.target() == {"uri": "http://127.0.0.1:9", "project": "seva_exp"}
    assert "SECRET" not in str(sink.refused())


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database whose tables are there: MLflow takes seconds to make them."""
    mlflow = pytest.importorskip("mlflow", reason="pip install 'seva_exp[mlflow]'")
    root = tmp_path_factory.mktemp("mlflow")
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow/mlflow.db")
    return root


@pytest.fixture
def client(tmp_path: Path, database: Path) -> Any:
    """MLflow's own reader, over a database of this test."""
    from mlflow import MlflowClient

    (tmp_path / "mlflow").mkdir()
    file = tmp_path / "mlflow" / "mlflow.db"
    file.write_bytes((database / "mlflow" / "mlflow.db").read_bytes())
    return MlflowClient(tracking_uri=f"sqlite:///{file}")


def the_run(client: Any) -> Any:
    (run,) = client.search_runs([client.get_experiment_by_name("proj").experiment_id])
    return run


def steps(client: Any, name: str) -> list[int]:
    return [one.step for one in client.get_metric_history(the_run(client).info.run_id, name)]


def files(client: Any, folder: str | None = None) -> list[str]:
    found: list[str] = []
    for one in client.list_artifacts(the_run(client).info.run_id, folder):
        found += files(client, one.path) if one.is_dir else [one.path]
    return sorted(found)


def test_the_same_names_and_numbers(
    tmp_path: Path, client: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    play(a_plan(tmp_path / "run"), tmp_path / "store", TRACKER, live=5)
    said, run = capfd.readouterr(), the_run(client)
    where = f"run {run.info.run_id}, in {tmp_path}/mlflow/mlflow.db"
    assert said.out == "" and said.err.startswith(f"MLflow: {where}. To look: mlflow ui --backend")
    assert said.err.count("\n") == 1
    assert run.info.status == "FINISHED" and run.info.run_name == "demo"
    assert steps(client, "align/loss") == [row["step"] for row in ROWS]
    history = client.get_metric_history(run.info.run_id, "align/loss")
    assert [one.value for one in history] == [row["loss"] for row in ROWS]
    values = run.data.metrics
    assert values["benchmark/shapes/all/CHAIRi/aligned"] == 25
    assert values["benchmark/shapes/all/CHAIRi/delta/p"] == 0.01
    assert values["stage/align/rate"] == 2.5 and values["pairs/dropped/equal"] == 3
    assert values["stage/align/cached"] == 0
    params, tags = run.data.params, run.data.tags
    assert params["generation.servers.0.port"] == "1" and params["views"] == "moco"
    assert params["model.path"] == "org/llava-1.5-7b-hf"
    assert tags["seva_exp.tags"] == "a, seva, moco, llava-1.5-7b-hf"
    assert tags["seva_exp.group"] == "g" and tags["seva_exp.job_type"] == "align"
    there = files(client)
    assert "examples/moco/0.png" in there and "adapter/adapter_config.json" not in there
    folder = Path(client.download_artifacts(run.info.run_id, ""))
    assert folder.is_relative_to(tmp_path / "mlflow" / "artifacts")
    assert pandas.read_csv(folder / "scores.csv").value.tolist() == [26, 25]
    (caption,) = pandas.read_csv(folder / "examples" / "moco" / "captions.csv").caption
    assert "chosen: a dog\nrejected (moco): a cat" in caption
    with Image.open(folder / "examples" / "moco" / "0.png") as image:
        assert image.size == (72, 72)
    made = json.loads((folder / "files.json").read_text())["files"]
    assert [one["path"] for one in made] == [
        str(tmp_path / "run" / name) for name in ("pairs/pairs.jsonl", "align/adapter")
    ]
    found = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]
    assert not [p for p in found if b"SECRET" in p.read_bytes()]


def test_a_resumed_run_goes_on_and_a_complete_one_is_left(
    tmp_path: Path, client: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    play(a_plan(tmp_path / "one"), store, TRACKER, live=3, fail=True)
    assert the_run(client).info.status == "FAILED" and steps(client, "align/loss") == [1, 2, 3]
    plan = a_plan(tmp_path / "two", cached=("answers.clean",))
    plan = replace(plan, config={**plan.config, "machine": {"batch_size": 3}, "views": "other"})
    play(plan, store, TRACKER, live=5)
    run = the_run(client)
    assert run.info.status == "FINISHED" and run.data.params["machine.batch_size"] == "3"
    assert steps(client, "align/loss") == [1, 2, 3, 4, 5]
    assert steps(client, "stage/answers.clean/rate") == [0], "what was said of it is not doubled"
    capfd.readouterr()
    play(a_plan(tmp_path / "three", cached=STAGES), store, TRACKER)
    assert "is already complete" in capfd.readouterr().err
    assert the_run(client).info.end_time == run.info.end_time


def test_a_run_that_was_deleted_there_is_sent_anew(tmp_path: Path, client: Any) -> None:
    store = tmp_path / "store"
    play(a_plan(tmp_path / "one"), store, TRACKER, live=3, fail=True)
    client.delete_run(the_run(client).info.run_id)
    play(a_plan(tmp_path / "two"), store, TRACKER, live=5)
    assert steps(client, "align/loss") == [1, 2, 3, 4, 5]


def test_files_are_copied_when_asked_for(tmp_path: Path, client: Any) -> None:
    tracker = TRACKER.model_copy(update={"artifacts": True})
    play(a_plan(tmp_path / "run"), tmp_path / "store", tracker, live=5)
    there = files(client)
    assert "adapter/adapter_config.json" in there and "pairs/pairs.jsonl" in there


def test_names_and_values_that_mlflow_refuses_are_made_fit(tmp_path: Path, client: Any) -> None:
    plan = a_plan(tmp_path / "run")
    many = {str(i): i for i in range(250)}
    plan = replace(plan, config={**plan.config, "text": "x" * 9000, "n@me+": 1, "many": many})
    outcome = an_outcome(plan)
    odd = Score("base", "shapes", "all", "CHAIRi", 2.0, 1, 3, 9, "other, g > 1", "lower")
    play(
        plan,
        tmp_path / "store",
        TRACKER.model_copy(update={"tags": ("t" * 64,) * 200}),
        outcome=replace(outcome, report=replace(outcome.report, scores=(odd,))),
    )
    run = the_run(client)
    assert run.info.status == "FINISHED" and len(run.data.params["text"]) == 6000
    assert run.data.params["n_me_"] == "1" and run.data.params["many.249"] == "249"
    assert run.data.metrics["benchmark/shapes_other_ g _ 1/all/CHAIRi/base"] == 2
