"""Predictions as other harnesses' files: what those read of them gives the same scores."""

from __future__ import annotations

import ast
import base64
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from seva_exp.benchmarks import OFFICIAL, ShapesBenchmark
from seva_exp.benchmarks.judge_answers import scored, settled
from seva_exp.benchmarks.protocols import packaged_protocols
from seva_exp.benchmarks.samples import make_samples
from seva_exp.benchmarks.statistics import scores
from seva_exp.core.randomness import python_rng
from seva_exp.core.records import Judgement, Prediction, to_line, write_jsonl
from seva_exp.core.spec import Json
from seva_exp.runs.export import main

NO_REPORT = {
    "key": "", "name": "", "seed": 0, "dir": "", "stages": [], "pairs": None, "scores": [],
    "deltas": [],
}  # fmt: skip
"""Of a run that did nothing."""

YES_NO = ("pope", "mme", "amber")
CHOICES = ("mmbench_en", "mmbench_cn", "seed", "scienceqa")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "root"
    make_samples(folder)
    return folder


JUDGED = ("llava_bench", "mmhal", "mmvet", "shr")


def says(kind: str, target: str, id: str, model: str) -> str:
    """Something right, wrong, or awkward in a table."""
    rng = python_rng(0, f"{model}-{kind}", id)
    if rng.random() < 0.15:
        return rng.choice(['"quoted"\ttab', "two\nlines", "许多字。", "None of them"])
    if rng.random() < 0.6:
        return target.capitalize() if kind in YES_NO else target
    return rng.choice(["Yes", "No"] if kind in YES_NO else ["B", "C", "7"])


def judged(benchmark, root: Path, said: list[Prediction]) -> list[Prediction]:
    """As a judge stage leaves them: every fourth answer is unjudged."""
    judging = benchmark.judging(root, own=True)
    reply = {
        "mmvet": "0.5",
        "llava_bench": "8 7",
        "shr": "1. correct\n2. hallucination",
        "mmhal": "Rating: 4",
    }
    questions = {question.id: question for question in benchmark.questions(root)}
    verdicts = []
    for number, one in enumerate(said):
        found = judging.read(reply[benchmark.kind], questions[one.sample_id], one)
        if number % 4 and found:
            verdicts.append(
                Judgement(one.sample_id, 0, "", found.extracted, found.score, found.counts)
            )
    return settled(said, verdicts)


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory) -> Path:
    """A run's folder as evaluate stages leave it: real questions and rules, scripted answers."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    kinds = [kind for kind in OFFICIAL if kind not in ("chair", "object_halbench")]
    known = packaged_protocols
    chosen = {
        kind: OFFICIAL[kind](
            kind=kind, protocol="vlmevalkit" if "vlmevalkit" in known(kind) else "llava15"
        )
        for kind in kinds
    }
    chosen["shapes"] = ShapesBenchmark(images=4)
    stages, found = [], []
    for name, benchmark in chosen.items():
        for model in ("base", "aligned"):
            label = f"evaluate.{model}.{name}"
            (folder / label).mkdir(parents=True)
            said = [
                benchmark.predict(q, says(name, q.target, q.id, model))
                for q in benchmark.questions(root)
            ]
            write_jsonl(folder / label / "predictions.jsonl", said)
            stages.append({"name": label, "key": "", "cached": False, "seconds": 1.0})
            if benchmark.needs_judge:
                label = f"judge.{model}.{name}"
                (folder / label).mkdir()
                said = judged(benchmark, root, said)
                write_jsonl(folder / label / "predictions.jsonl", said)
                stages.append({"name": label, "key": "", "cached": False, "seconds": 1.0})
                said = scored(said)
            names = {"model": model, "benchmark": name, "protocol": benchmark.protocol_name}
            found += scores(benchmark.metrics, said, **names)
    rows = [json.loads(to_line(score)) for score in found]
    report = NO_REPORT | {"name": "seva +aug=moco", "stages": stages, "scores": rows}
    (folder / "report.json").write_text(json.dumps(report))
    config = {name: benchmark.to_json() for name, benchmark in chosen.items()}
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"benchmark": config, "data_root": str(root)})
    )
    return folder


@pytest.fixture(scope="module")
def tables(finished, tmp_path_factory) -> dict[tuple[str, str], pd.DataFrame]:
    """(model, dataset) -> the table as VLMEvalKit loads it."""
    out = tmp_path_factory.mktemp("kit")
    assert main([str(finished), "--format", "vlmevalkit", "--out", str(out)]) == 0
    found = {}
    for path in out.rglob("*.tsv"):
        model = path.parent.name
        assert model.startswith("seva-aug-moco_")
        assert path.name.startswith(f"{model}_")
        key = model.removeprefix("seva-aug-moco_"), path.stem.removeprefix(f"{model}_")
        found[key] = pd.read_csv(path, sep="\t", keep_default_na=False)
    return found


def reported(finished: Path, model: str, benchmark: str) -> dict[tuple[str, str], float]:
    rows = json.loads((finished / "report.json").read_text())["scores"]
    mine = [row for row in rows if (row["model"], row["benchmark"]) == (model, benchmark)]
    return {(row["split"], row["metric"]): row["value"] for row in mine}


def kept(finished: Path, model: str, benchmark: str) -> list[bool]:
    """Whether each question's answer has a score, by a rule or by the judge."""
    folders = [finished / f"{stage}.{model}.{benchmark}" for stage in ("judge", "evaluate")]
    folder = next(folder for folder in folders if folder.is_dir())
    rows = (folder / "predictions.jsonl").read_text().splitlines()
    return [json.loads(row)["score"] is not None for row in rows]


def yes_or_no(text: str) -> str:
    words = text.lower().split()
    return {(True, False): "Yes", (False, True): "No"}.get(("yes" in words, "no" in words), "")


@pytest.mark.parametrize("model", ["base", "aligned"])
def test_pope_from_the_table(model, tables, finished):
    table, want = tables[model, "POPE"], reported(finished, model, "pope")
    assert table["index"].is_unique, "answers are looked up by it there"
    for split, rows in table.groupby("category"):
        said = rows["prediction"].map(yes_or_no)
        assert 100 * (said == rows["answer"]).mean() == pytest.approx(want[split, "accuracy"])
        hits = ((said == "Yes") & (rows["answer"] == "Yes")).sum()
        f1 = 200 * hits / ((said == "Yes").sum() + (rows["answer"] == "Yes").sum())
        assert f1 == pytest.approx(want[split, "f1"])


@pytest.mark.parametrize("model", ["base", "aligned"])
def test_mme_from_the_table(model, tables, finished):
    table, want = tables[model, "MME"], reported(finished, model, "mme")
    table["score"] = table["prediction"].map(yes_or_no) == table["answer"]
    for category, rows in table.groupby("category"):
        plus = rows.groupby("image_path")["score"].agg(["prod", "size"])
        assert (plus["size"] == 2).all()
        value = 100 * (rows["score"].mean() + plus["prod"].mean())
        assert value == pytest.approx(want[category, "score"])


@pytest.mark.parametrize("model", ["base", "aligned"])
def test_amber_from_the_table(model, tables, finished):
    """The mean accuracy of three dimensions, as VLMEvalKit's AMBER_rating has it."""
    table, want = tables[model, "AMBER"], reported(finished, model, "amber")
    table["score"] = table["prediction"].map(yes_or_no) == table["answer"]
    dimension = table["category"].str.removeprefix("discriminative-").str.split("-").str[0]
    means = 100 * table.groupby(dimension)["score"].mean()
    assert set(means.index) == {"hallucination", "attribute", "relation"}
    assert means["hallucination"] == pytest.approx(want["existence", "accuracy"])
    assert means["attribute"] == pytest.approx(want["attribute", "accuracy"])
    assert means.mean() == pytest.approx(want["discriminative", "mean_accuracy"])
    assert table.groupby("image_path").size().min() > 1
    assert table["question"].str.endswith("?").all()


@pytest.mark.parametrize("kind", CHOICES)
def test_multiple_choice_from_the_table(kind, tables, finished):
    table = tables["base", Path(OFFICIAL[kind].tables[-1]).stem]
    right = table["prediction"] == table["answer"]
    assert table["answer"].isin(["A", "B", "C", "D"]).all()
    for row in table.to_dict("records"):
        assert row[row["answer"]] != "", "the right choice has a text"
        assert row["question"]
    if kind.startswith("mmbench"):  # rotations count together
        right = right.groupby(table["index"].astype(int) % 1_000_000).all()
    want = reported(finished, "base", kind)
    assert 100 * right.mean() == pytest.approx(want["all", "accuracy"])


def test_textvqa_from_the_table(tables, finished):
    def agreement(row: Json) -> float:
        answers = [answer.lower() for answer in ast.literal_eval(row["answer"])]
        assert len(answers) == 10
        others = [answers[:i] + answers[i + 1 :] for i in range(10)]
        said = str(row["prediction"]).lower()
        return sum(min(1, rest.count(said) / 3) for rest in others) / 10

    rows = tables["base", "TextVQA_VAL"].to_dict("records")
    want = reported(finished, "base", "textvqa")["all", "accuracy"]
    assert 100 * sum(map(agreement, rows)) / len(rows) == pytest.approx(want)


def test_chartqa_and_gqa_from_the_table(tables, finished):
    want = reported(finished, "base", "chartqa")
    for split, rows in tables["base", "ChartQA_TEST"].groupby("split"):
        right = rows["prediction"].astype(str).str.strip() == rows["answer"].astype(str)
        name = split.removeprefix("test_")
        assert 100 * right.mean() == pytest.approx(want[name, "accuracy"])
    table = tables["base", "GQA_TestDev_Balanced"]
    right = table["prediction"].str.strip().str.lower() == table["answer"].str.lower()
    want = reported(finished, "base", "gqa")
    assert 100 * right.mean() == pytest.approx(want["all", "accuracy"])


def test_mathvista_has_what_its_extraction_reads(tables):
    for row in tables["base", "MathVista_MINI"].to_dict("records"):
        choices = ast.literal_eval(row["choices"])
        assert row["question_type"] in ("multi_choice", "free_form")
        assert row["answer_type"] in ("text", "integer", "float", "list")
        assert isinstance(ast.literal_eval(row["skills"]), list)
        assert row["task"]
        if choices:
            assert choices["ABCDEFGH".index(row["answer_option"])] == str(row["answer"])
        else:
            assert row["answer_option"] == ""


def test_every_prediction_is_in_the_table_word_for_word(tables, finished):
    for (model, dataset), table in tables.items():
        kinds = [k for k, c in OFFICIAL.items() if c.tables and Path(c.tables[-1]).stem == dataset]
        path = finished / f"evaluate.{model}.{(kinds or [dataset])[0]}" / "predictions.jsonl"
        said = [json.loads(line)["text"] for line in path.read_text().splitlines()]
        assert table["prediction"].astype(str).tolist() == said


def test_a_row_of_the_kits_table_in_three_splits_is_three_rows(root, tmp_path):
    picture = base64.b64encode(next((root / "coco" / "val2014").iterdir()).read_bytes()).decode()
    names = ("index", "image", "question", "answer", "category")
    rows = [names, ("0", picture, "Is there a dog?", "No", "adversarial,popular,random")]
    (tmp_path / "POPE.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    benchmark = OFFICIAL["pope"](kind="pope", protocol="vlmevalkit")
    assert [id for id, _ in benchmark.table_rows(tmp_path)] == [
        q.id for q in benchmark.questions(tmp_path)
    ]
    found = [row for _, row in benchmark.table_rows(tmp_path)]
    assert [row["category"] for row in found] == ["adversarial", "popular", "random"]
    assert len({row["index"] for row in found}) == 3
    assert {(row["question"], row["answer"]) for row in found} == {("Is there a dog?", "No")}
    assert all("image" not in row for row in found)


def test_samples_as_lmms_eval_reads_them(finished, tmp_path):
    assert main([str(finished), "--format", "lmms_eval", "--out", str(tmp_path)]) == 0
    for model in ("base", "aligned"):
        folder = tmp_path / f"seva-aug-moco_{model}"
        (results_file,) = folder.glob("*_results.json")
        results = json.loads(results_file.read_text())
        date = results_file.name.removesuffix("_results.json")
        for task, metrics in results["results"].items():
            lines = (folder / f"{date}_samples_{task}.jsonl").read_text().splitlines()
            samples = [json.loads(line) for line in lines]
            scored = [number for number, one in enumerate(kept(finished, model, task)) if one]
            assert [s["doc_id"] for s in samples] == scored
            count = results["n-samples"][task]
            assert count["effective"] == len(samples) > 0
            assert (count["original"] > len(samples)) == (task in JUDGED)
            want = reported(finished, model, task)
            for (split, metric), value in want.items():
                name = metric if split == "all" else f"{split}_{metric}"
                assert metrics[f"{name},none"] == value
            # its paired comparison takes the first key with "score" in its name
            graded = [next(v for k, v in s.items() if "score" in k.lower()) for s in samples]
            assert all(isinstance(value, float) for value in graded)
            if task in ("seed", "scienceqa", "gqa", "textvqa", "chartqa", "mathvista"):
                mean = 100 * sum(graded) / len(graded)
                assert mean == pytest.approx(want["all", "accuracy"])


def test_other_files_than_the_run_read_are_refused(finished, root, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(root, other)
    path = other / "pope" / "coco_pope_popular.json"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    words = [str(finished), "--format", "vlmevalkit", "--out", str(tmp_path / "out")]
    assert main([*words, "--data-root", str(other)]) == 2
    assert "benchmark.pope: the files below" in capsys.readouterr().err
    assert main([*words, "--data-root", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_place_that_is_no_folder_is_refused(finished, tmp_path, capsys):
    (tmp_path / "file").touch()
    words = [str(finished), "--format", "lmms_eval", "--out", str(tmp_path / "file" / "out")]
    assert main(words) == 2
    assert f"--out={tmp_path / 'file' / 'out'}: no folder" in capsys.readouterr().err


def test_a_folder_without_a_measured_run_is_refused(tmp_path, capsys):
    words = ["--format", "lmms_eval", "--out", str(tmp_path / "out")]
    assert main([str(tmp_path), *words]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    (tmp_path / "report.json").write_text(json.dumps(NO_REPORT))
    (tmp_path / "config.yaml").write_text("{}")
    assert main([str(tmp_path), *words]) == 2
    assert "measured nothing" in capsys.readouterr().err
