"""What a sweep may take: by the past artifacts that came about in the likest way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from seva_exp import Experiment
from seva_exp.augment import GaussianBlur
from seva_exp.command.forecast import Cost, Past, duration, size
from seva_exp.core.digests import FileDigests
from seva_exp.core.store import Manifest, Store
from seva_exp.experiment import graph
from seva_exp.models import HubModel
from seva_exp.stages import Stage


def stages(tmp_path: Path, **changes) -> dict[str, Stage]:
    experiment = Experiment(aug={"blur": GaussianBlur()}).model_copy(update=changes)
    return {stage.label: stage for stage in graph(experiment, FileDigests(tmp_path))}


def remember(
    store: Store, stage: Stage, seconds: float, content: str = "", summary: dict | None = None
) -> None:
    """As if it had been computed in so many seconds."""

    def work(folder: Path) -> dict:
        (folder / "result.txt").write_text(content)
        return summary or {}

    inputs = {source.label: source.key for source in stage.inputs.values()}
    made = Manifest(stage.name, stage.version, stage.key, stage.spec(), inputs, {}, 0.0)
    store.make(
        lambda _, summary: replace(made, seconds=seconds, summary=summary),
        stage.name,
        stage.key,
        work,
    )


def test_the_likest_artifact_decides(tmp_path):
    store = Store(tmp_path).create()
    plain = stages(tmp_path)
    large = stages(tmp_path, data=Experiment(aug={"b": GaussianBlur()}).data.model_copy(
        update={"samples": 6000}))  # fmt: skip
    for label in ("samples", "answers.clean"):
        remember(store, plain[label], 10.0, "x" * 100)
        remember(store, large[label], 100.0, "x" * 1000)
    past = Past(tmp_path)
    small, much = past.cost(plain["answers.blur"]), past.cost(large["answers.blur"])
    assert (small.seconds, much.seconds) == (10.0, 100.0)
    assert much.size - small.size >= 900
    assert past.cost(plain["align"]) == Cost(None, None, 0), "nothing like it was ever made"


def test_another_model_s_time_is_no_estimate(tmp_path):
    store = Store(tmp_path).create()
    plain = stages(tmp_path)
    for stage in plain.values():
        remember(store, stage, 1.0)
    other = stages(tmp_path, model=HubModel(path="a/b", revision="0" * 40))
    past = Past(tmp_path)
    assert past.cost(other["align"]).seconds is None
    assert past.cost(other["samples"]).seconds == 1.0
    assert past.cost(plain["align"]).seconds == 1.0


def test_units():
    assert [duration(s) for s in (3, 95, 6000, 2e5)] == ["3 s", "1.6 min", "1.7 h", "2.3 d"]
    assert [size(b) for b in (2000, 3 * 2**20, 2**31)] == ["2 KiB", "3.0 MiB", "2.0 GiB"]


def test_a_hundred_samples_tell_what_a_million_will_take(tmp_path):
    """What a probe (``data.samples=100``) made is scaled to the samples of the run to come."""
    store = Store(tmp_path).create()
    data = Experiment(aug={"b": GaussianBlur()}).data
    probe = stages(tmp_path, data=data.model_copy(update={"samples": 100}))
    full = stages(tmp_path, data=data.model_copy(update={"samples": 1_000_000}))
    remember(store, probe["samples"], 1.0, summary={"samples": 100})
    remember(store, probe["answers.clean"], 5.0, "x" * 4000)
    remember(store, probe["align"], 7.0)
    past = Past(tmp_path)
    again, much = past.cost(probe["answers.blur"]), past.cost(full["answers.blur"])
    assert again.seconds == 5.0 and much.seconds == 5.0 * 10_000
    assert much.size == 10_000 * again.size
    assert past.cost(full["samples"]).seconds == 1.0 * 10_000
    assert past.cost(full["align"]).seconds == 7.0, "its steps are not told by the samples alone"
