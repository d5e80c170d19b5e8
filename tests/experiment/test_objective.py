"""What a search makes better, read from a run; choosing and reporting never share a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

import pytest

from seva_exp import Experiment, Machine, Options, StageError, run
from seva_exp.augment import Moco
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.errors import InputError
from seva_exp.core.records import PairCounts, Report
from seva_exp.data import ShapesData
from seva_exp.experiment.objective import check_objective, value_of
from seva_exp.runs.reader import FinishedRun

SELECTION = ShapesBenchmark(images=8, split="selection")
SMALL = Experiment(aug={"moco": Moco()}, data=ShapesData(samples=24), benchmark={"it": SELECTION})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run up to the reference."""
    machine = Machine(runs=str(tmp_path_factory.mktemp("runs")))
    options = Options(stop_after="reference")
    return FinishedRun.read(Path(run(SMALL, machine, options, listeners=[]).dir))


def test_the_cheap_objectives_are_those_of_the_pairs_and_the_reference(finished):
    report = finished.report
    lines = (finished.folder / "reference" / "reference.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert 0 < len(rows) == report.pairs.kept < 24
    margins = [row["chosen"] - row["rejected"][0] for row in rows]
    assert value_of("pairs/kept_share", finished) == len(rows) / 24
    assert value_of("reference/margin", finished) == pytest.approx(fmean(margins))
    hard = sum(1 / (1 + math.exp(margin)) for margin in margins) / 24
    assert value_of("negatives/hardness", finished) == pytest.approx(hard)


def test_a_number_that_the_run_has_not_is_told(finished):
    report = finished.report
    with pytest.raises(StageError, match="measured no such thing"):
        value_of("benchmark/it/pope/accuracy/delta", finished)
    without = Report(report.key, "x", 0, report.dir, (), PairCounts(10, 3, {}))
    with pytest.raises(StageError, match="stop_after=reference"):
        value_of("negatives/hardness", FinishedRun(finished.folder, without, {}))
    none_kept = Report(report.key, "x", 0, report.dir, (), PairCounts(10, 0, {}))
    assert value_of("negatives/hardness", FinishedRun(finished.folder, none_kept, {})) == 0


def test_a_score_by_its_name(tmp_path):
    options = Options(stop_after="evaluate.base")
    report = run(SMALL, Machine(runs=str(tmp_path)), options, listeners=[])
    [score] = [s for s in report.scores if (s.split, s.metric) == ("pope", "accuracy")]
    assert score.protocol == "seva_exp-shapes-v1+selection"
    assert (
        value_of("benchmark/it/pope/accuracy/base", FinishedRun(tmp_path, report, {}))
        == score.value
    )


WRONG = [
    ("benchmark/it/pope/accuracy", "benchmark/NAME/SPLIT/METRIC/WHICH"),
    ("benchmark/it/pope/accuracy/best", "WHICH one of: base, aligned, delta"),
    ("benchmark/pope/all/accuracy/delta", "no benchmark pope"),
    ("benchmark/it/pope/acuracy/delta", "Did you mean 'pope/accuracy'"),
    ("pairs/kept", "Did you mean 'pairs/kept_share'"),
]


@pytest.mark.parametrize(("name", "said"), WRONG)
def test_an_objective_that_is_none_is_refused(name, said):
    with pytest.raises(InputError, match=said):
        check_objective(name, SMALL)


def test_a_score_is_refused_where_the_run_stops_before_it():
    name = "benchmark/it/pope/accuracy/delta"
    check_objective(name, SMALL, "compare.it")
    check_objective("negatives/hardness", SMALL, "reference")
    with pytest.raises(InputError, match=r"stop_after=reference\. Set stop_after=null"):
        check_objective(name, SMALL, "reference")


@pytest.mark.parametrize("split", ["all", "test"])
def test_choosing_by_what_is_reported_is_refused(split):
    name = "benchmark/it/pope/accuracy/delta"
    check_objective(name, SMALL)
    reported = SELECTION.model_copy(update={"split": split})
    with pytest.raises(InputError, match=r"benchmark\.split=selection"):
        check_objective(name, SMALL.model_copy(update={"benchmark": {"it": reported}}))


def test_the_two_splits_are_halves_without_a_common_picture():
    questions = {
        split: ShapesBenchmark(images=200, split=split).chosen()
        for split in ("all", "selection", "test")
    }
    groups = {split: {q.group for q in found} for split, found in questions.items()}
    assert not groups["selection"] & groups["test"]
    assert groups["selection"] | groups["test"] == groups["all"]
    assert 70 < len(groups["selection"]) < 130
    ids = {split: [q.id for q in found] for split, found in questions.items()}
    assert sorted(ids["selection"] + ids["test"]) == sorted(ids["all"])
    assert [i for i in ids["all"] if i in set(ids["test"])] == ids["test"], "in order"


HALVES = {
    "selection": ["000000", "000001", "000002", "000003", "000004", "000006", "000008"],
    "test": ["000005", "000007", "000009", "000010", "000011"],
}
"""Of the embedded world's first dozen pictures."""


def test_which_pictures_are_in_which_split_does_not_change():
    """What was chosen on one half is reported on the other: a picture never changes sides."""
    groups = {
        split: [q.group for q in ShapesBenchmark(images=12, split=split).chosen()]
        for split in ("selection", "test")
    }
    assert {split: sorted(set(found)) for split, found in groups.items()} == HALVES


def test_a_split_has_a_key_of_its_own_and_no_split_the_one_it_always_had():
    def identity(split: str) -> dict:
        return ShapesBenchmark(split=split).identity(lambda path: "0", None)

    assert "split" not in identity("all")
    assert identity("test") == identity("all") | {"split": "test"}
