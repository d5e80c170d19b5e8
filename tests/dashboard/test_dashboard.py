"""Workspace and report: what they ask W&B for is what a tracked run has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seva_exp.compare.runs import ComparedRun
from seva_exp.core.spec import Json
from seva_exp.dashboard.__main__ import main
from seva_exp.dashboard.overview import LoggedMetric, overview_of
from seva_exp.runs.folder import RunDir

from ..tracking.played import OFFLINE, a_plan, an_outcome, of_type, play, records, summary


def a_run(root: Path, key: str, **dpo: Any) -> Path:
    """The folder of a finished run with these fields of ``dpo``."""
    plan = a_plan(root, key=key * 64)
    plan = replace(plan, config={**plan.config, "dpo": dpo, "seed": int(key)})
    folder = RunDir.create(plan)
    plan = replace(plan, dir=folder.path)
    folder.finished(an_outcome(plan))
    return folder.path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for key, beta, loss in (("1", 0.1, "a"), ("2", 0.3, "b"), ("3", 0.3, "b")):
        a_run(tmp_path / "runs", key, beta=beta, loss=loss, steps=5)
    return tmp_path / "runs"


def test_what_differs_is_found_without_what_does_not(runs: Path) -> None:
    (runs / "multirun").mkdir()
    seen = overview_of(ComparedRun.read_all(sorted(runs.glob("*")))[0])
    assert seen.fields == {"dpo.beta": True, "dpo.loss": False}, "not the seed, nor equal fields"
    assert seen.metrics == (LoggedMetric("benchmark/shapes/all/CHAIRi", "lower"),)
    assert seen.training == ("align/loss",) and seen.views == ("moco",)
    assert seen.dropped == ("equal",)


def test_headlines_are_of_every_part_of_every_benchmark(runs: Path) -> None:
    names = ("shapes/pope/words", "shapes/pope/f1", "shapes/pope_random/f1", "shapes/vqa/mean")
    others = ("mmbench_en/all/accuracy", "mmbench_cn/all/accuracy", "pope@a+dar/all/f1")
    found = [
        LoggedMetric(f"benchmark/{name}", "neutral" if name.endswith("words") else "higher")
        for name in (*names, *others)
    ]
    headlines = replace(
        overview_of(ComparedRun.read_all(sorted(runs.glob("*")))[0]), metrics=tuple(found)
    ).headlines(4)
    wanted = ("shapes/pope/f1", "shapes/vqa/mean", *others[:2])
    assert [metric.name for metric in headlines] == [f"benchmark/{name}" for name in wanted]


def values_of(node: Any, *names: str) -> Iterator[Any]:
    """Whatever stands under one of these names, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in names:
                yield value
            yield from values_of(value, *names)
    elif isinstance(node, list):
        for one in node:
            yield from values_of(one, *names)


def asked(pages: Json) -> set[str]:
    """The names of all numbers and pictures that the panels draw."""
    texts = json.dumps(pages)
    found = set(re.findall(r'"summary:([^"]+)"', texts))
    for some in values_of(pages, "metrics", "mediaKeys"):
        found |= set(some)
    return found | set(values_of(pages, "targetKey"))


def test_every_panel_draws_what_a_tracked_run_logs(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dry-run", "--out", "pages.json", "--group", "g", "--entity", "us"]) == 0
    printed = json.loads(capfd.readouterr().out)
    pages = json.loads((tmp_path / "pages.json").read_text(encoding="utf-8"))
    assert set(pages) == set(printed) == {"workspace", "report"}
    play(a_plan(tmp_path / "tracked"), tmp_path / "store", OFFLINE, live=5)
    logged = records(tmp_path / "tracked")
    history = [name for row in of_type(logged, "history") for name in row["item"]]
    names = {name.split(".")[0] for name in [*summary(logged), *history]}  # examples/moco.count
    assert asked(pages) <= names, asked(pages) - names
    scores = {f"benchmark/shapes/all/CHAIRi/{one}" for one in ("aligned", "delta")}
    assert asked(pages) >= {*scores, "align/loss", "pairs/kept", "examples/clean", "examples/moco"}
    for page in pages.values():
        kinds = set(values_of(page, "viewType"))
        assert kinds >= {"Parallel Coordinates Plot", "Scatter Plot", "Bar Chart", "Media Browser"}
        assert set(values_of(page, "xAxis")) >= {"config:dpo.value.beta", "align/step"}
        accessors = list(values_of(page, "accessor"))
        assert accessors[:2] == ["config:dpo.value.beta", "config:dpo.value.loss"]
        assert accessors[2] == "summary:benchmark/shapes/all/CHAIRi/delta"
        assert {"section": "run", "name": "group"} in list(values_of(page, "key")), "the filter"
    assert pages["workspace"]["entity"] == "us"


def test_the_library_reads_its_pages_back(runs: Path) -> None:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces.internal import View

    assert main(["--out", "pages.json"]) == 0
    pages = json.loads(Path("pages.json").read_text(encoding="utf-8"))
    workspace = Workspace._from_model(View.model_validate(pages["workspace"]))
    titles = [section.name for section in workspace.sections]
    assert titles == [
        "What differs, and what came of it",
        "shapes",
        "Training",
        "Pairs",
        "Examples",
    ]
    report = Report._from_model(ReportViewspec.model_validate(pages["report"]))
    assert len(report.blocks) == 1 + 3 * len(titles)


def test_only_runs_that_differ_in_their_seed_are_averaged(runs: Path) -> None:
    assert main(["--out", "pages.json"]) == 0
    two = json.loads(Path("pages.json").read_text(encoding="utf-8"))
    assert not list(values_of(two, "groupArea")), "two fields differ: a bar a run"
    same_beta = [path for path in runs.glob("2*") if "0.3" in (path / "config.yaml").read_text()]
    a_run(runs, "4", beta=0.5, loss="b", steps=5)
    other = next(path for path in runs.glob("2*") if "0.5" in (path / "config.yaml").read_text())
    assert main([*map(str, same_beta), str(other), "--out", "pages.json"]) == 0
    one = json.loads(Path("pages.json").read_text(encoding="utf-8"))
    assert set(values_of(one, "groupBy")) == {"dpo.value.beta"}
    assert set(values_of(one, "groupArea")) == {"stddev"}


def test_a_run_alone_has_nothing_that_differs(
    runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = next(path for path in runs.glob("2*"))
    assert main([str(one), "nowhere", "--out", "pages.json"]) == 0
    assert "left out: " in capfd.readouterr().err
    text = Path("pages.json").read_text(encoding="utf-8")
    assert "Scatter Plot" not in text and "Bar Chart" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere"], "no finished run: give folders such as runs/2026-*."),
        ([], "W&B cannot be reached: no API key found. --dry-run prints what would be sent."),
    ],
)
def test_what_is_missing_is_said(
    runs: Path, words: list[str], why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    *left_out, last = capfd.readouterr().err.splitlines()
    assert last == f"seva_exp: {why}"
    assert [line.endswith("/nowhere: no such folder.") for line in left_out] == [True] * len(words)


def test_without_the_package_it_says_how_to_get_it(
    runs: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seva_exp.dashboard.__main__.find_spec", lambda name: None)
    assert main(["--dry-run"]) == 2
    said = capfd.readouterr().err
    assert "wandb-workspaces is not installed: pip install 'seva_exp[dashboard]'." in said
