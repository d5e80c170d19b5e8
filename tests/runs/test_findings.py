"""What a reader must know before the numbers of a run: results that are none, answers of nothing,
questions that did not fit."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from seva_exp.core.records import Finding, Prediction, Report, write_jsonl
from seva_exp.core.texts import is_repetitive, whole_characters
from seva_exp.inputs.fields import placeholder_in, unspoken
from seva_exp.inputs.prompts import infuse
from seva_exp.report.significance import finding_text
from seva_exp.runs.findings import findings
from seva_exp.stages.artifacts import (
    AdapterArtifact,
    AnswerArtifact,
    Artifact,
    PairArtifact,
    ScoreArtifact,
)


@dataclass(frozen=True)
class Made:
    """As much of a stage as is asked."""

    label: str
    makes: type[Artifact]


def found(folder: Path, makes: type[Artifact], summary=None) -> list[tuple[str, str, bool]]:
    stage = Made("a.stage", makes)
    got = findings([stage], lambda one: folder, {"a.stage": summary or {}})
    assert all(one.stage == "a.stage" for one in got)
    return [(one.kind, one.text, one.no_result) for one in got]


def predictions(folder: Path, texts, targets=None, unparsed=None, stops=None) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        Prediction(
            f"q{i}", f"p{i}", "t", "?", text, text, (targets or ["a", "b", "c"])[i % 3], 1.0,
            {"asked": 1.0} | ({} if unparsed is None else {"unparsed": float(unparsed(text))}),
            (stops or {}).get(i, "eos"),
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip
    write_jsonl(folder / "predictions.jsonl", rows)
    return folder


def various(count: int) -> list[str]:
    return [f"answer {i}" for i in range(count)]


LOOP = "There is a red circle. " * 12


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (various(40), []),
        ([*various(38), "", " \n"], []),
        ([*various(37), "", "", ""], [("empty_answers", "3 of 40 answers are empty", False)]),
        ([""] * 40, [("empty_answers", "all 40 answers are empty", True)]),
        ([*various(38), LOOP, LOOP], []),
        (
            [*various(37), LOOP, LOOP, LOOP],
            [("repetitive_answers", "3 of 40 answers go round in circles", False)],
        ),
        (["yes"] * 40, [("one_answer", "40 of 40 answers are the same: 'yes'", False)]),
        (
            [*["yes"] * 38, "no", "no"],
            [("one_answer", "38 of 40 answers are the same: 'yes'", False)],
        ),
        ([*["yes"] * 37, "no", "no", "no"], []),
        (["yes"] * 19, []),
    ],
)
def test_answers_of_an_evaluation(tmp_path, texts, wanted):
    assert found(predictions(tmp_path, texts), ScoreArtifact) == wanted


def test_one_answer_to_all_is_no_finding_where_it_is_right(tmp_path):
    assert found(predictions(tmp_path, ["yes"] * 40, ["yes"] * 3), ScoreArtifact) == []


def test_answers_of_which_none_can_be_read_are_no_result(tmp_path):
    mute = predictions(tmp_path / "mute", various(30), unparsed=lambda text: True)
    wanted = ("unread_answers", "none of 30 answers could be read", True)
    assert found(mute, ScoreArtifact) == [wanted]
    one = predictions(tmp_path / "one", various(30), unparsed=lambda text: text != "answer 7")
    assert found(one, ScoreArtifact) == []


@pytest.mark.parametrize(("few", "told"), [(4, False), (19, False), (20, True)])
def test_a_type_of_a_few_questions_is_no_missing_result(tmp_path, few, told):
    """As NaturalBench's one group of choices among yes-or-no questions."""
    folder = predictions(tmp_path, various(60), unparsed=lambda text: int(text[7:]) < few)
    file = folder / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[:few]:
        row["type"] = "choice"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"none of {few} answers to questions of choice could be read"
    assert found(folder, ScoreArtifact) == [("unread_answers", text, True)] * told


def test_questions_that_did_not_fit_are_told_apart_from_empty_answers(tmp_path):
    some = {0: "too_long", 1: "too_long"}
    folder = predictions(tmp_path, ["", "", *various(38)], stops=some)
    text = "2 of 40 questions do not fit the model's context: unanswered"
    assert found(folder, ScoreArtifact) == [("too_long", text, False)]
    every = predictions(tmp_path, [""] * 3, stops=dict.fromkeys(range(3), "too_long"))
    assert [(kind, none) for kind, _, none in found(every, ScoreArtifact)] == [("too_long", True)]


def test_predictions_of_an_older_version_are_read(tmp_path):
    folder = predictions(tmp_path, [""] * 3)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    for row in rows:
        del row["stop"]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found(folder, ScoreArtifact) == [("empty_answers", "all 3 answers are empty", True)]


def test_answers_of_a_view(tmp_path):
    assert found(tmp_path, AnswerArtifact, {"answers": 100, "empty": 5}) == []
    assert found(tmp_path, AnswerArtifact, {"answers": 100}) == [], "of an older version"
    wanted = ("empty_answers", "6 of 100 answers are empty", False)
    assert found(tmp_path, AnswerArtifact, {"answers": 100, "empty": 6}) == [wanted]
    assert found(tmp_path, AnswerArtifact, {"answers": 9, "empty": 9})[0][2]
    assert found(tmp_path, AnswerArtifact, {"answers": 0, "empty": 0}) == []
    assert found(tmp_path, PairArtifact, {"kept": 0}) == []


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("changed", [False, True])
def test_an_adapter_that_changed_nothing(tmp_path, changed, older):
    """Where its summary does not tell, the logged steps do."""
    row = {"step": 1, "learning_rate": 1e-4 * changed, "grad_norm": 0.3}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    summary = {} if older else {"adapter_changed": changed}
    text = "training changed nothing: the model is what it was before"
    wanted = [] if changed else [("adapter_unchanged", text, True)]
    assert found(tmp_path, AdapterArtifact, summary) == wanted


def test_findings_are_part_of_the_report_and_of_no_older_one():
    one = Finding("align", "adapter_unchanged", "training changed nothing", True)
    row = json.loads(json.dumps(Report("k", "n", 0, ".", (), findings=(one,)).to_json()))
    assert row["findings"] == [
        {"stage": "align", "kind": "adapter_unchanged", "text": one.text, "no_result": True}
    ]
    assert Report.from_json(row).findings == (one,)
    del row["findings"]
    assert Report.from_json(row).findings == ()
    assert finding_text(one) == "align: training changed nothing; there is no result"
    assert finding_text(replace(one, no_result=False)) == "align: training changed nothing"


# --- texts


@pytest.mark.parametrize(
    ("text", "circles"),
    [
        (LOOP, True),
        ("no " * 16, True),
        ("no " * 15, False),
        (" ".join(map(str, range(40))), False),
        (
            "There is a red circle left of a blue star. There is a green ring above a red moon.",
            False,
        ),
    ],
)
def test_what_goes_round_in_circles(text, circles):
    assert is_repetitive(text) == circles


def test_halves_of_surrogate_pairs_become_what_can_be_written():
    assert whole_characters("a\ud83d") == "a\ufffd"
    assert whole_characters("\ude00\ud83d") == "\ufffd\ufffd"
    assert whole_characters("\ud83d\ude00") == "\U0001f600"
    same = "plain, \u00fc\u4e2d\U0001f600\u2028\0"
    assert whole_characters(same) == same


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a <image> here", "a image here"),
        ("<|image_pad|>", "image_pad"),
        ("</img>", "img"),
        ("[IMG]", "IMG"),
        ("an image of < and >", "an image of < and >"),
    ],
)
def test_a_description_that_spells_out_a_placeholder_shows_no_second_picture(text, kept):
    assert unspoken(text) == kept
    sent = infuse("{description}\n{question}", text, "Is it {description}?")
    assert sent == f"{kept}\nIs it {{description}}?"
    assert placeholder_in(sent) is None


def test_the_findings_of_all_stages_stand_in_the_order_of_work(tmp_path):
    stages = [Made(f"answers.{name}", AnswerArtifact) for name in "ba"]
    summaries = {stage.label: {"answers": 1, "empty": 1} for stage in stages}
    got = findings(stages, lambda stage: tmp_path, summaries)
    assert [one.stage for one in got] == ["answers.b", "answers.a"]
    assert findings([SimpleNamespace(label="x", makes=Artifact)], lambda s: tmp_path, {}) == []
