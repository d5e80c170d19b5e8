"""Whole runs on preference sets that others made: nothing is asked; what is exported reads back
equal; marks of a person are a filter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from seva_exp import Experiment, Machine, Options, run
from seva_exp.augment import BadPrompt, LowResolution
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.compare.__main__ import main as compare
from seva_exp.core.errors import InputError
from seva_exp.core.records import Pair, read_jsonl
from seva_exp.data import PairsData, ShapesData
from seva_exp.experiment.so_far import pairs_so_far
from seva_exp.methods import SevaMethod
from seva_exp.preferences.filters import EqualFilter, MarkedFilter
from seva_exp.report.pairs_page import write_page
from seva_exp.runs.export import main as export
from seva_exp.runs.reader import FinishedRun
from seva_exp.training import DpoTraining

FORMATS = ("trl", "llamafactory", "ms_swift", "rlaif_v")
SHORT = DpoTraining(warmup_ratio=0.0, batch_size=8)


@pytest.fixture(scope="module")
def machine(tmp_path_factory, shared_store) -> Machine:
    runs = tmp_path_factory.mktemp("given")
    return Machine(store=str(shared_store), runs=str(runs), progress="off")


@pytest.fixture(scope="module")
def made(machine) -> Path:
    """A run that made pairs of its own, of two views."""
    experiment = Experiment(
        aug={"low": LowResolution(), "bad": BadPrompt(prompts="tiny")},
        data=ShapesData(samples=24),
        benchmark={},
    )
    return Path(run(experiment, machine, Options(stop_after="pairs"), listeners=[]).dir)


def flat(pairs: list[Pair]) -> list[tuple[str, str, str, str]]:
    return [(p.image.sha256, p.prompt, p.chosen, text) for p in pairs for text in p.rejected]


def pairs_of(folder: Path) -> list[Pair]:
    return list(read_jsonl(folder / "pairs" / "pairs.jsonl", Pair))


def given(path: Path, **options) -> Experiment:
    options = {"benchmark": {}, "dpo": SHORT} | options
    return Experiment(data=PairsData(path=str(path)), **options)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_exported_reads_back_equal(made, machine, tmp_path, format):
    assert export([str(made), "--format", format, "--out", str(tmp_path / "out")]) == 0
    file = next(iter([*tmp_path.glob("out/pairs.*")]))
    report = run(given(file), machine, Options(stop_after="pairs"), listeners=[])
    assert flat(pairs_of(Path(report.dir))) == flat(pairs_of(made))
    assert {view for pair in pairs_of(Path(report.dir)) for view in pair.views} == {"given"}


def test_trl_itself_takes_what_is_exported_for_it(made, tmp_path):
    import datasets
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    from seva_exp.models import TinyModel
    from seva_exp.models.processor import load_processor

    assert export([str(made), "--format", "trl", "--out", str(tmp_path)]) == 0
    rows = datasets.Dataset.from_parquet(str(tmp_path / "pairs.parquet"), cache_dir=str(tmp_path))
    batch = DataCollatorForVisionPreference(load_processor(TinyModel()))([rows[0], rows[1]])
    assert len(batch["input_ids"]) == 4 and batch["pixel_values"].shape[-1] == 72


LLAMAFACTORY = {
    "conversations": [{"from": "human", "value": "<image>{question}"}],
    "chosen": {"from": "gpt", "value": "{good}"},
    "rejected": {"from": "gpt", "value": "{bad}"},
    "images": ["{image}"],
}
MS_SWIFT = {
    "messages": [
        {"role": "user", "content": "<image>{question}"},
        {"role": "assistant", "content": "{good}"},
    ],
    "rejected_response": "{bad}",
    "images": ["{image}"],
}


@pytest.mark.parametrize("row", [LLAMAFACTORY, MS_SWIFT], ids=["llamafactory", "ms_swift"])
def test_a_set_by_hand_is_aligned_on_and_compared(row, made, machine, tmp_path, capsys):
    pictures = sorted((made / "samples" / "images").iterdir())[:8]
    lines = []
    for number, picture in enumerate(pictures):
        text = json.dumps(row)
        for name, value in (
            ("question", "What is this?"),
            ("good", f"The image shows {number} things."),
            ("bad", "The image shows nothing."),
            ("image", picture.name),
        ):
            text = text.replace(f"{{{name}}}", value)
        lines.append(text)
    (tmp_path / "set.jsonl").write_text("\n".join(lines) + "\n")
    data = PairsData(path=str(tmp_path / "set.jsonl"), image_folder=str(pictures[0].parent))
    experiment = Experiment(data=data, dpo=SHORT, benchmark={"shapes": ShapesBenchmark(images=2)})
    report = run(experiment, machine)
    labels = [stage.name for stage in report.stages]
    assert not [one for one in labels if one.startswith("answers")]
    assert labels[:2] == ["samples", "pairs"] and "align" in labels
    assert report.pairs.kept == 8 and report.deltas
    assert (Path(report.dir) / "report.html").stat().st_size > 10_000
    other = run(Experiment(data=data, dpo=SHORT, benchmark={}), machine, listeners=[])
    capsys.readouterr()
    out = tmp_path / "compare.html"
    assert compare([report.dir, other.dir, str(made), "--out", str(out)]) == 0
    assert out.is_file()
    found = pairs_so_far(Path(report.dir), 2)
    assert found.counts["kept"] == 8 and len(found.latest) == 2


def test_a_broken_row_is_told_before_any_model(made, machine, tmp_path, monkeypatch):
    monkeypatch.setattr("seva_exp.stages.loaded.load_model", None)
    good = json.dumps(MS_SWIFT).replace("{image}", str(next((made / "samples/images").iterdir())))
    (tmp_path / "set.jsonl").write_text(good + "\n" + good.replace("{bad}", " ") + "\n")
    data = PairsData(path=str(tmp_path / "set.jsonl"), image_folder=str(made / "samples/images"))
    with pytest.raises(InputError, match=r"row 2 of '.*set\.jsonl'"):
        run(Experiment(data=data, benchmark={}), machine, listeners=[])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"aug": {"low": LowResolution()}}, r"no view is asked \(low\)"),
        ({"method": SevaMethod(rounds=2)}, r"method\.rounds=2"),
        ({"method": SevaMethod(negatives="hardest")}, r"negatives=hardest"),
        ({"method": SevaMethod(prompts="stic")}, r"method\.prompts=stic"),
        ({"dpo": DpoTraining(loss={"sigmoid": 1, "image": 1})}, "term 'image' needs"),
        ({"filters": ({"kind": "length_ratio", "max": 2, "unit": "tokens"},)}, "no tokens"),
    ],
)
def test_what_depends_on_views_is_refused_by_name(tmp_path, options, why):
    with pytest.raises(ValidationError, match=why):
        given(tmp_path / "set.jsonl", **options)


def test_pictures_that_views_showed_go_with_ms_swift(made, tmp_path, capsys):
    words = [str(made), "--out", str(tmp_path), "--rejected-images"]
    assert export([*words, "--format", "ms_swift"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    views = [view for pair in pairs_of(made) for view in pair.views]
    for row, view in zip(rows, views, strict=True):
        assert (tmp_path / row["rejected_images"][0]).is_file()
        assert (row["rejected_images"] == row["images"]) == (view == "bad")
    assert {"low", "bad"} == set(views)
    assert export([*words, "--format", "trl"]) == 2
    assert "ms_swift alone" in capsys.readouterr().err


def test_a_run_on_given_pairs_is_exported_again(made, machine, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert export([str(made), "--format", "ms_swift", "--out", str(first)]) == 0
    again = run(given(first / "pairs.jsonl"), machine, Options(stop_after="pairs"), listeners=[])
    assert export([str(again.dir), "--format", "ms_swift", "--out", str(second)]) == 0
    texts = [(folder / "pairs.jsonl").read_text() for folder in (first, second)]
    assert texts[0] == texts[1]


def test_a_run_without_pairs_or_pictures_is_told(made, tmp_path, capsys):
    assert export([str(tmp_path / "x"), "--format", "trl", "--out", str(tmp_path / "o")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_marks_are_a_filter_with_a_key_by_its_contents(made, machine, tmp_path):
    before = pairs_of(made)
    both = next(pair for pair in before if len(pair.rejected) == 2)
    other = next(pair for pair in before if pair.sample_id != both.sample_id)
    marks = tmp_path / "marks.jsonl"
    rows = [
        {"sample_id": both.sample_id, "view": both.views[0], "mark": "drop"},
        {"sample_id": other.sample_id, "mark": "drop"},
    ]
    marks.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def pairs(unmarked: str = "keep", path: Path = marks) -> tuple[dict[str, Pair], str]:
        experiment = Experiment(
            aug={"low": LowResolution(), "bad": BadPrompt(prompts="tiny")},
            data=ShapesData(samples=24),
            benchmark={},
            filters=(EqualFilter(), MarkedFilter(path=str(path), unmarked=unmarked)),
        )
        report = run(experiment, machine, Options(stop_after="pairs"), listeners=[])
        found = {pair.sample_id: pair for pair in pairs_of(Path(report.dir))}
        return found, report.stages[-1].key

    found, key = pairs()
    assert found[both.sample_id].views == both.views[1:]
    assert other.sample_id not in found and len(found) == len(before) - 1
    (tmp_path / "again.jsonl").write_bytes(marks.read_bytes())
    assert pairs(path=tmp_path / "again.jsonl")[1] == key
    marks.write_text(json.dumps({"sample_id": both.sample_id, "mark": "keep"}) + "\n")
    found, other_key = pairs("drop")
    assert [*found] == [both.sample_id] and other_key != key
    marks.write_text(json.dumps({"sample_id": "x", "mark": "maybe"}) + "\n")
    with pytest.raises(InputError, match=r"filters\.1\.path: .*line 1: field 'mark'.*'maybe'"):
        pairs()
    with pytest.raises(InputError, match="there is no file"):
        pairs(path=tmp_path / "gone.jsonl")


def test_the_page_of_pairs_holds_them_all_and_nothing_from_elsewhere(made, tmp_path):
    [page] = write_page(FinishedRun.read(made), tmp_path)
    text = page.read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [(row["chosen"], row["rejected"]) for row in data["rows"]] == [
        (chosen, rejected) for _, _, chosen, rejected in flat(pairs_of(made))
    ]
    assert all(data["pictures"][row["picture"]]["uri"] for row in data["rows"])
    assert "http" not in text.replace("http-equiv", "")
