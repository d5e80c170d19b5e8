"""TensorBoard, as its own reader sees it: the same names and numbers as W&B, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seva_exp.tracking import TensorboardTracker

from .played import KEY, ROWS, STAGES, a_plan, play

pytest.importorskip("tensorboard", reason="pip install 'seva_exp[tensorboard]'")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

TRACKER = TensorboardTracker(tags=("a",), group="g")


def the_folder(root: Path) -> Path:
    return root / "tensorboard" / f"demo-{KEY[:8]}"


def read(root: Path) -> EventAccumulator:
    found = EventAccumulator(str(the_folder(root)), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def steps(found: EventAccumulator, name: str) -> list[int]:
    return [event.step for event in found.Scalars(name)]


def text(found: EventAccumulator, name: str) -> str:
    (event,) = found.Tensors(f"{name}/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


def hparams(found: EventAccumulator) -> dict[str, Any]:
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(one, one.WhichOneof("kind")) for name, one in values.items()}


def status(found: EventAccumulator) -> int:
    content = found.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    return int(metadata.parse_session_end_info_plugin_data(content).status)


def test_the_same_names_and_numbers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    play(a_plan(tmp_path / "run"), tmp_path / "store", TRACKER, live=5)
    said = capfd.readouterr()
    root = tmp_path / "tensorboard"
    told = f"TensorBoard: {the_folder(tmp_path)}. To look: tensorboard --logdir {root}\n"
    assert (said.out, said.err) == ("", told)
    found = read(tmp_path)
    assert steps(found, "align/loss") == [row["step"] for row in ROWS]
    losses = [event.value for event in found.Scalars("align/loss")]
    assert losses == pytest.approx([row["loss"] for row in ROWS])
    assert "align/step" not in found.Tags()["scalars"]
    for name, value in (
        ("benchmark/shapes/all/CHAIRi/aligned", 25),
        ("benchmark/shapes/all/CHAIRi/delta/p", 0.01),
        ("stage/align/rate", 2.5),
        ("pairs/dropped/equal", 3),
    ):
        assert [event.value for event in found.Scalars(name)] == [pytest.approx(value)]
    assert "| aligned | shapes | all | CHAIRi | 25.0 |" in text(found, "scores")
    assert f"| adapter | {tmp_path}/run/align/adapter |" in text(found, "summary")
    assert "| environment.device | cpu |" in text(found, "summary")
    (picture,) = found.Images("examples/moco")
    assert (picture.width, picture.height, picture.step) == (72, 72, 0)
    assert "chosen: a dog  \nrejected (moco): a cat" in text(found, "examples/moco")
    values = hparams(found)
    assert values["generation.servers.0.port"] == 1 and values["views"] == "moco"
    assert values["group"] == "g" and values["job_type"] == "align"
    assert values["tags"] == str(["a", "seva", "moco", "llava-1.5-7b-hf"])
    assert status(found) == api_pb2.STATUS_SUCCESS
    files = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]
    assert not [p for p in files if b"SECRET" in p.read_bytes()]


def test_a_resumed_run_goes_on_and_a_complete_one_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    play(a_plan(tmp_path / "one"), store, TRACKER, live=3, fail=True)
    failed = read(tmp_path)
    assert steps(failed, "align/loss") == [1, 2, 3] and status(failed) == api_pb2.STATUS_FAILURE
    assert hparams(failed)["views"] == "moco"
    play(a_plan(tmp_path / "two", cached=("answers.clean",)), store, TRACKER, live=5)
    found = read(tmp_path)
    assert steps(found, "align/loss") == [1, 2, 3, 4, 5]
    assert steps(found, "stage/answers.clean/rate") == [0], "what was said of it is not doubled"
    assert status(found) == api_pb2.STATUS_SUCCESS
    capfd.readouterr()
    before = sorted(the_folder(tmp_path).iterdir())
    play(a_plan(tmp_path / "three", cached=STAGES), store, TRACKER)
    assert "is already complete" in capfd.readouterr().err
    assert sorted(the_folder(tmp_path).iterdir()) == before


def test_each_step_is_there_at_once(tmp_path: Path) -> None:
    """As noted: what a killed process has noted as sent would never be sent again."""
    from seva_exp.tracking import make_listeners

    (listener,) = make_listeners(TRACKER, tmp_path / "store", tmp_path)
    listener.planned(a_plan(tmp_path / "run"))
    for row in ROWS[:3]:
        listener.logged("align", row["step"], row)
        assert steps(read(tmp_path), "align/loss")[-1] == row["step"]
    listener.failed(RuntimeError("end"))
