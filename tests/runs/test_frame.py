"""Finished runs as a pandas table: what a row holds, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from seva_exp.core.errors import InputError
from seva_exp.runs import frame

from ..compare.conftest import make_run  # noqa: F401  # a fixture

pandas = pytest.importorskip("pandas")


@pytest.fixture
def runs(make_run) -> Path:  # noqa: F811
    make_run("a", seed=1, right=0.9, dpo={"beta": 0.1, "loss": {"sigmoid": 1.0}})
    folder = make_run("b", seed=2, dpo={"beta": 0.5})
    (folder / "overrides.txt").write_text("python -m seva_exp +aug=moco dpo.beta=0.5\n")
    return folder.parent


def test_a_row_holds_config_scores_changes_and_costs(runs):
    found = frame(runs)
    assert list(found.index) == ["a", "b"] and list(found["seed"]) == [1, 2]
    assert list(found["dpo.beta"]) == [0.1, 0.5]
    assert found["dpo.loss.sigmoid"].isna().tolist() == [False, True]
    assert found["command"]["b"] == "python -m seva_exp +aug=moco dpo.beta=0.5"
    assert found["command"]["a"] == "", "of the Python API"
    report = json.loads((runs / "a" / "report.json").read_text())
    score = next(s for s in report["scores"] if s["model"] == "aligned")
    name = f"shapes/{score['split']}/{score['metric']}/aligned"
    for column, key in (("", "value"), ("/low", "low"), ("/high", "high")):
        assert found[name + column]["a"] == score[key]
    delta = report["deltas"][0]
    name = f"shapes/{delta['split']}/{delta['metric']}/delta"
    assert (found[name]["a"], found[f"{name}/p"]["a"]) == (delta["value"], delta["p"])
    better = found.sort_values(name, ascending=False)
    assert better.index[0] == "a", "as a person would look for the best"


def test_folders_are_given_alone_or_several_and_costs_are_those_of_the_comparison(runs, make_run):  # noqa: F811
    make_run("trained", align="k")
    assert list(frame([runs / "b", runs / "trained"]).index) == ["b", "trained"]
    assert frame(str(runs / "trained"))["cost/seconds"].tolist() == [1.5 * 5]
    assert len(frame(runs)) == 3


def test_no_run_and_no_pandas_are_told(runs, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="nothing"):
        frame(tmp_path / "nothing")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas: pip install pandas"):
        frame(runs)
