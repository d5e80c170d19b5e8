"""Data and trainings that give no result, or only part of one, in whole runs: told, named, counted;
the rest goes on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from seva_exp import Experiment, Machine, Options, StageError, run
from seva_exp.augment import LowResolution
from seva_exp.compare.__main__ import main as compare
from seva_exp.core.randomness import python_rng
from seva_exp.core.records import Pair, Prediction, read_jsonl
from seva_exp.data import JsonlData
from seva_exp.decoding import ServerGeneration
from seva_exp.report.console import Console
from seva_exp.report.html import HtmlReport
from seva_exp.training import DpoTraining
from seva_exp.world import UNBIASED, draw, sample_scene

from .served.serving import Misbehaving, completion
from .test_end_to_end import machine, small

LONG = "What color is the circle? " * 200


def questions(folder: Path, count: int, **changed: str) -> JsonlData:
    """``count`` pictures with a question each; ``changed``: by number another one."""
    (folder / "img").mkdir(parents=True)
    rows = []
    for i in range(count):
        picture = draw(sample_scene(python_rng(0, "no-result", str(i)), UNBIASED))
        picture.save(folder / "img" / f"{i}.png")
        asked = changed.get(f"q{i}", f"Is there a star, in picture {i}?")
        rows.append({"id": f"s{i}", "image": f"img/{i}.png", "question": asked})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JsonlData(path=str(folder / "rows.jsonl"), id_field="id")


def manifest(report, label: str) -> dict:
    return json.loads((Path(report.dir) / label / "manifest.json").read_text())


def test_one_question_that_is_too_long_costs_no_other_its_pair(tmp_path, capsys):
    data = questions(tmp_path / "data", 6, q2=LONG)
    experiment = small(data=data, benchmark={}, aug={"low_resolution": LowResolution(side=2)})
    options = Options(stop_after="reference")
    report = run(experiment, machine(tmp_path, progress="off"), options, listeners=[Console()])
    assert report.pairs.dropped["too_long"] == 1
    assert report.pairs.kept + sum(report.pairs.dropped.values()) == report.pairs.sampled == 6
    kept = [pair.sample_id for pair in read_jsonl(Path(report.dir) / "pairs.jsonl", Pair)]
    assert kept and "s2" not in kept
    said = capsys.readouterr().out
    assert said.count("left out: s2: too_long (no room in the model's context)") == 2
    assert "1 too_long" in said


def test_a_server_s_answer_with_an_image_token_costs_no_other_its_pair(tmp_path):
    """It is known when the model's tokenizer sees it: in the reference stage."""

    asked: Counter[str] = Counter()

    def answer(handler):
        question = handler.server.bodies[-1]["messages"][-1]["content"][1]["text"]
        asked[question] += 1  # the clean view first
        number = question.rpartition(" ")[2].rstrip("?")
        said = {"3": "<image> red", "4": ""}.get(number, f"red {number}")
        handler.send(200, completion(said if asked[question] == 1 else "blue"))
        return True

    endpoint = Misbehaving()
    endpoint.always = answer
    with endpoint:
        report = run(
            Experiment(
                data=questions(tmp_path / "data", 6),
                aug={"low_resolution": LowResolution()},
                generation=ServerGeneration(served_model="served", max_new_tokens=8),
                benchmark={},
            ),
            Machine(
                **{"store": str(tmp_path / "store"), "runs": str(tmp_path / "runs")},
                progress="off",
                server={"url": endpoint.url, "concurrency": 1},
            ),
            Options(stop_after="reference"),
            listeners=[],
        )
    assert report.pairs.dropped == {"empty": 1, "image_token": 1}
    assert (report.pairs.sampled, report.pairs.kept) == (6, 4)
    summary = manifest(report, "reference")["summary"]
    assert summary["preferences"] == 4
    assert summary["left_out"][0].startswith("s3: image_token (The answer '<image> red'")
    assert manifest(report, "answers.clean")["summary"]["empty"] == 1
    assert [(one.stage, one.kind) for one in report.findings] == [
        ("answers.clean", "empty_answers")
    ], "one of six is more than a share"


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory, shared_store):
    """A run whose training moved no weight, its gradients clipped to nothing; and what it said."""
    folder = tmp_path_factory.mktemp("unchanged")
    still = DpoTraining(warmup_ratio=0.0, max_grad_norm=1e-300)
    said: list[str] = []

    class Heard(Console):
        def noted(self, text):
            said.append(text)

    listeners = [HtmlReport(), Heard()]
    return run(small(dpo=still), machine(folder, shared_store), listeners=listeners), said


def test_an_adapter_that_changed_nothing_is_told_in_the_report(unchanged):
    report, said = unchanged
    assert [(one.stage, one.kind, one.no_result) for one in report.findings] == [
        ("align", "adapter_unchanged", True)
    ]
    row = json.loads((Path(report.dir) / "report.json").read_text())
    assert row["findings"][0]["kind"] == "adapter_unchanged"
    page = (Path(report.dir) / "report.html").read_text(encoding="utf-8")
    assert "There is no result of align: training changed nothing" in page
    assert said == ["align: 1 step, 0 of warm-up, peak rate 0.0001"]
    base, aligned = (
        list(
            read_jsonl(Path(report.dir) / f"evaluate.{m}.shapes" / "predictions.jsonl", Prediction)
        )
        for m in ("base", "aligned")
    )
    assert [p.text for p in base] == [p.text for p in aligned]


def test_it_is_told_again_where_all_is_cached_and_where_runs_are_compared(
    unchanged, tmp_path, shared_store, capsys
):
    still = DpoTraining(warmup_ratio=0.0, max_grad_norm=1e-300)
    again = run(small(dpo=still), machine(tmp_path, shared_store), listeners=[Console()])
    assert all(stage.cached for stage in again.stages)
    assert again.findings == unchanged[0].findings
    line = "align: training changed nothing: the model is what it was before; there is no result"
    assert f"warning: {line}" in capsys.readouterr().out
    assert compare([unchanged[0].dir, "--out", str(tmp_path / "page.html")]) == 0
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_training_that_cannot_learn_stops_before_it_begins(tmp_path, shared_store):
    few = small(dpo=DpoTraining())
    with pytest.raises(
        StageError, match=r"make 1 step .* dpo\.warmup_ratio=0\.1 its learning rate"
    ):
        run(few, machine(tmp_path, shared_store), listeners=[])
    assert not (shared_store / "align" / few.title).exists()


def test_a_sweep_s_end_tells_of_results_that_are_none(cli, shared_store):
    done = cli(
        "-m", "+aug=diffusion_noise", "aug.diffusion_noise.step=600", "data.samples=24",
        "benchmark.shapes.images=6", "tracker=none", "dpo.warmup_ratio=0",
        "dpo.max_grad_norm=1e-300,1.0", f"machine.store={shared_store}", "dpo.fast=auto",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "  no result [" in done.stdout and "] align\n" in done.stdout
    told = [line for line in done.stdout.splitlines() if line.startswith("  warning: ")]
    assert len(told) == 1
    assert "1e-300: align: training changed nothing" in told[0]
