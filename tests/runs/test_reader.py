"""A run's folder is read through one reader, whose results do not depend on how its links look."""

from __future__ import annotations

from pathlib import Path

import pytest

from seva_exp import Experiment, Machine, Options, run
from seva_exp.augment import Moco
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.errors import InputError
from seva_exp.core.records import PairCounts, Report, StageResult
from seva_exp.data import ShapesData
from seva_exp.experiment.objective import value_of
from seva_exp.runs.links import followed
from seva_exp.runs.reader import FinishedRun
from seva_exp.training import DpoTraining

SMALL = Experiment(
    aug={"moco": Moco()},
    data=ShapesData(samples=24),
    dpo=DpoTraining(warmup_ratio=0.0),
    benchmark={"shapes": ShapesBenchmark(images=4)},
)


def a_run(folder: Path) -> FinishedRun:
    options = Options(stop_after="reference")
    return FinishedRun.read(Path(run(SMALL, Machine(runs=str(folder)), options, listeners=[]).dir))


@pytest.fixture
def without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinishedRun:
    """Of a machine that refuses symbolic links."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no symbolic links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    return a_run(tmp_path / "plain")


def content(found: FinishedRun) -> list[object]:
    views = found.views()
    answers = {v: found.answers(label, ["shapes-000003"]) for v, label in views.items()}
    previews = {v: [p.read_bytes() for p in found.previews(n).values()] for v, n in views.items()}
    root = found.image_root()
    assert root
    samples = found.samples(["shapes-000001"])
    pictures = [(root / one.image.path).read_bytes() for one in samples]
    return [list(found.pairs()), list(found.margins()), answers, previews, samples, pictures]


def test_without_symbolic_links_the_same_is_read(without_links, tmp_path, monkeypatch):
    assert (without_links.folder / "answers.moco").is_file(), "a text file"
    monkeypatch.undo()
    linked = a_run(tmp_path / "linked")
    assert (linked.folder / "answers.moco").is_symlink()
    assert content(without_links) == content(linked)
    pairs, margins, answers, previews, samples, _ = content(linked)
    assert len(pairs) == len(margins) == linked.report.pairs.kept > 0
    assert {view: len(found) for view, found in answers.items()} == {"clean": 1, "moco": 1}
    assert previews["moco"] and samples
    for name in ("negatives/hardness", "reference/margin"):
        assert value_of(name, without_links) == value_of(name, linked)


def test_a_link_to_a_run_is_the_run(without_links):
    latest = without_links.folder.with_name("latest")
    assert latest.is_file()
    assert FinishedRun.read(latest).folder == without_links.folder
    runs, left_out = FinishedRun.read_all([latest, without_links.folder])
    assert [one.folder for one in runs] == [without_links.folder] and not left_out
    pairs = without_links.folder / "pairs.jsonl"
    assert pairs.is_file() and followed(pairs) == without_links.artifact("pairs") / "pairs.jsonl"


def test_a_file_that_is_no_link_is_itself_and_no_run(tmp_path):
    for name, text in (("notes", "two\nlines"), ("word", "word\n"), ("long", "/" + "x" * 5000)):
        (tmp_path / name).write_text(text)
        assert followed(tmp_path / name) == tmp_path / name
        with pytest.raises(InputError, match="no such folder"):
            FinishedRun.read(tmp_path / name)


@pytest.mark.parametrize(
    ("stages", "counted"),
    [
        (["pairs"], "pairs"),
        (["pairs.round1", "align.round1", "pairs.round2"], "pairs.round1"),
        (["pairs.round1", "align.round1", "pairs.round2", "align.round2"], "pairs.round2"),
        (["samples"], None),
    ],
)
def test_the_pairs_are_those_that_the_report_counts(tmp_path, stages, counted):
    results = tuple(StageResult(name, name, False, 1.0) for name in stages)
    report = Report("k", "n", 0, str(tmp_path), results, PairCounts(2, 1, {"equal": 1}))
    found = FinishedRun(tmp_path, report, {}).pairs_stage
    assert (found.name if found else None) == counted


def test_what_is_gone_from_the_store_is_empty(tmp_path):
    stages = ("samples", "answers.clean", "answers.moco", "pairs", "align", "evaluate.base.shapes")
    results = tuple(StageResult(name, name, False, 1.0) for name in stages)
    gone = FinishedRun(tmp_path, Report("k", "n", 0, str(tmp_path), results), {})
    assert not list(gone.pairs()) and not list(gone.training()) and not gone.samples(["a"])
    assert gone.views() == {"clean": "answers.clean", "moco": "answers.moco"}
    assert gone.answers("answers.moco", ["a"]) == gone.previews("answers.moco") == {}
    assert gone.predictions("base", "shapes") == [] and gone.image_root() is None
    assert gone.manifest("align") is None
    assert gone.adapter == tmp_path / "align" / "adapter"
