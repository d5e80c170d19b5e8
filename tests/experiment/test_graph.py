"""What follows from a stage, and what it needs: in wide graphs as in narrow ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from seva_exp import Experiment, Machine, Options
from seva_exp.augment import HorizontalFlip
from seva_exp.core.digests import FileDigests
from seva_exp.experiment.graph import forced_keys, graph, with_inputs
from seva_exp.experiment.work import Work
from seva_exp.methods import BestOfKMethod, SevaMethod
from seva_exp.scores import SCORES
from seva_exp.stages import Stage

NARROW = Experiment(aug={"flip": HorizontalFlip()}, method=SevaMethod(rounds=2))
WIDE = Experiment(
    method=BestOfKMethod(candidates=10, rounds=8, scores={"own": SCORES["agreement"]()})
)


def needs(stage: Stage, key: str) -> bool:
    """Written out: by every path."""
    return stage.key == key or any(needs(one, key) for one in stage.inputs.values())


@pytest.mark.parametrize("name", ["samples", "answers.clean.round1", "align.round1", "evaluate"])
def test_what_is_forced_is_what_stands_behind_it(name: str, tmp_path: Path) -> None:
    stages = graph(NARROW, FileDigests(tmp_path))
    named = [stage for stage in stages if stage.is_called(name)]
    behind = {s.key for s in stages if any(needs(s, one.key) for one in named)}
    assert forced_keys([name], stages) == behind
    before = {s.key for s in stages if any(needs(one, s.key) for one in named)}
    assert with_inputs(named) == before


def test_eight_rounds_of_ten_candidates_are_planned_at_once(tmp_path: Path) -> None:
    """Path by path there would be more than 10^8 of them."""
    stages = graph(WIDE, FileDigests(tmp_path))
    keys = {stage.key for stage in stages}
    assert with_inputs([stages[-1]]) <= keys
    assert forced_keys(["samples"], stages) == keys - {
        stage.key for stage in stages if stage.label == "evaluate.base.shapes"
    }


@pytest.mark.parametrize("stop_after", [None, "pairs.round120"])
def test_a_hundred_and_twenty_rounds_are_planned(stop_after: str | None, tmp_path: Path) -> None:
    """The last stage stands behind more stages than calls may be nested."""
    experiment = NARROW.model_copy(update={"method": SevaMethod(rounds=120)})
    options = Options(stop_after=stop_after)
    work = Work(experiment, Machine(store=str(tmp_path)), options, FileDigests(tmp_path))
    assert work.left == {stage.label for stage in work.chosen}
    assert "pairs.round120" in work.left
