"""What a sweep may take: by the past artifacts that came about in the likest way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from seva_exp import Experiment, Machine, Options
from seva_exp.augment import GaussianBlur
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.digests import FileDigests
from seva_exp.core.store import Manifest, Store
from seva_exp.experiment import graph
from seva_exp.experiment.past import Cost, Past, duration, forecast, size
from seva_exp.experiment.work import Work
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


def answers_that_loaded(store: Store, stage: Stage) -> None:
    remember(store, stage, 25.0, "x" * 4000, {"loading_seconds": 20.0, "answers": 100})


def test_a_model_is_loaded_once_however_many_samples_there_are(tmp_path):
    store = Store(tmp_path).create()
    probe, full = of_samples(tmp_path, 100), of_samples(tmp_path, 10_000)
    remember(store, probe["samples"], 1.0, summary={"samples": 100})
    answers_that_loaded(store, probe["answers.clean"])
    assert Past(tmp_path).cost(full["answers.clean"]).seconds == 20.0 + 5.0 * 100


def of_samples(tmp_path, count: int) -> dict[str, Stage]:
    data = Experiment(aug={"b": GaussianBlur()}).data
    return stages(tmp_path, data=data.model_copy(update={"samples": count}))


def test_where_samples_are_not_known_neither_is_the_time(tmp_path, monkeypatch):
    store = Store(tmp_path).create()
    probe, full = of_samples(tmp_path, 100), of_samples(tmp_path, 10_000)
    remember(store, probe["samples"], 1.0, summary={"samples": 100})
    remember(store, probe["answers.clean"], 5.0)
    monkeypatch.setattr(type(full["samples"].data), "estimate", lambda *_: None)
    assert Past(tmp_path).cost(full["answers.clean"]) == Cost(None, None, 0)
    assert Past(tmp_path).cost(probe["answers.clean"]).seconds == 5.0


def foretold(tmp_path, count: int, dry: bool = True, *words: str) -> list[str]:
    data = Experiment(aug={"b": GaussianBlur()}).data.model_copy(update={"samples": count})
    experiment = Experiment(aug={"blur": GaussianBlur()}, data=data)
    options = Options(dry_run=dry, stop_after="pairs")
    work = Work(experiment, Machine(store=str(tmp_path)), options, FileDigests(tmp_path))
    return list(forecast(work, words))


def test_a_long_run_is_told_how_to_probe_and_then_what_it_takes(tmp_path):
    store = Store(tmp_path).create()
    words = ("+aug=blur", "data.samples=50000", "dry_run=true", "name=a b")
    (line,) = foretold(tmp_path, 50_000, False, *words)
    command = "python -m seva_exp +aug=blur 'name=a b' data.samples=100 stop_after=pairs"
    assert "50,000 samples" in line and line.endswith(command)
    assert foretold(tmp_path, 900) == []
    probe = of_samples(tmp_path, 100)
    remember(store, probe["samples"], 1.0, summary={"samples": 100})
    answers_that_loaded(store, probe["answers.clean"])
    answers_that_loaded(store, probe["answers.blur"])
    for dry in (False, True):
        (line,) = foretold(tmp_path, 50_000, dry)
        assert line.startswith("forecast, as the likest past stages took: 1.5 h, ")
        assert "answers.clean 42.0 min at 19.8/s" in line and line.endswith("; unknown: pairs")
    assert foretold(tmp_path, 900, dry=False) == [], "it is short"


def test_no_room_is_told_of_a_short_run_too(tmp_path, monkeypatch):
    probe = of_samples(tmp_path, 100)
    remember(Store(tmp_path).create(), probe["samples"], 1.0, summary={"samples": 100})
    monkeypatch.setattr("seva_exp.experiment.past.free_in", lambda root: 10)
    (line,) = foretold(tmp_path, 900, dry=False)
    assert "of 0 KiB free" in line


def test_an_evaluation_is_scaled_by_its_questions_and_a_dry_run_counts_them(tmp_path):
    store = Store(tmp_path).create()
    few, many = (stages(tmp_path, benchmark={"shapes": ShapesBenchmark(images=n)}) for n in (2, 20))
    base, label = few["evaluate.base.shapes"], "evaluate.base.shapes"
    asked = {n: one[label].question_estimate() for n, one in ((2, few), (20, many))}
    questions = list(many[label].benchmark.questions(None))
    assert asked[20] == (len(questions), sum(one.max_new_tokens for one in questions))
    remember(store, base, 3.0, summary={"questions": asked[2][0]})
    past = Past(tmp_path)
    assert past.cost(base).seconds == 3.0
    assert past.cost(many[label]).seconds == 3.0 * asked[20][0] / asked[2][0]
    experiment = Experiment(
        aug={"blur": GaussianBlur()}, benchmark={"shapes": ShapesBenchmark(images=20)}
    )
    machine, digests = Machine(store=str(tmp_path)), FileDigests(tmp_path)
    work = Work(experiment, machine, Options(dry_run=True), digests)
    (line,) = (line for line in forecast(work, ()) if line.startswith("benchmarks: "))
    assert f"{2 * asked[20][0]:,} questions" in line and f"{2 * asked[20][1]:,} tokens" in line


def test_equal_runs_of_a_sweep_are_one_row(cli):
    said = cli("-m", "+aug=moco", "seed=0,1,2,3", "dpo.beta=0.1,0.2", "dry_run=true").stdout
    rows = [line for line in said.splitlines() if line.startswith("  seed=")]
    assert len(rows) == 8, (
        "each seed's second run shares more than its first: no two alike in a row"
    )
    said = cli("-m", "+aug=moco", "seed=range(5)", "dry_run=true").stdout
    rows = [line for line in said.splitlines() if line.startswith("  seed=")]
    assert [" ".join(row.split()[:3]) for row in rows] == ["seed=0 9 0", "seed=1 and 3"]
    assert max(len(line) for line in said.splitlines() if "free in" not in line) <= 80
