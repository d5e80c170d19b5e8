"""Tables of questions of one's own: read from each format, scored by the rules of known benchmarks,
refused by file and row, run on the embedded model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from seva_exp.benchmarks import BENCHMARKS, QuestionsBenchmark
from seva_exp.benchmarks.question import Question
from seva_exp.benchmarks.questions import RULES, SECTIONS
from seva_exp.benchmarks.statistics import scores
from seva_exp.command.config import parse
from seva_exp.core.digests import file_sha256
from seva_exp.core.errors import InputError
from seva_exp.core.records import Prediction, read_jsonl
from seva_exp.data.__main__ import main as data_main

from .judges import judge
from .test_judged_runs import asking_judge, composed, run

YES_NO = [
    {"image": "a.png", "question": "Is it red?", "answer": "Yes", "topic": "colour"},
    {"image": "a.png", "question": "Is it blue?", "answer": "no", "topic": "colour"},
    {"image": "b.png", "question": 'Is it "big", then?', "answer": "yes", "topic": "size"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the pictures a.png and b.png."""
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    return tmp_path


def written(path: Path, rows: list[dict]) -> Path:
    """The rows in the format that the file's name says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as out:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def asked(path: Path, **fields) -> list[Question]:
    return list(QuestionsBenchmark(path=str(path), protocol="tiny", **fields).questions())


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_every_format_gives_the_same_questions(folder, ending):
    found = asked(written(folder / f"q.{ending}", YES_NO), category_field="topic")
    assert [(q.id, q.group, q.type, q.prompt, q.target) for q in found] == [
        ("1", "a.png", "colour", "Is it red?", "yes"),
        ("2", "a.png", "colour", "Is it blue?", "no"),
        ("3", "b.png", "size", 'Is it "big", then?', "yes"),
    ]
    assert found[2].load().getpixel((0, 0)) == (0, 0, 255)


def test_a_spreadsheets_mark_and_blank_lines_are_no_part_of_a_table(folder):
    (folder / "q.csv").write_bytes(
        b"\xef\xbb\xbfimage,question,answer\r\na.png,Red?,yes\r\n\r\nb.png,Red?,no\r\n"
    )
    assert [q.target for q in asked(folder / "q.csv")] == ["yes", "no"]


def test_columns_are_named_and_pictures_lie_where_they_are_said_to(folder):
    rows = [{"file": "b.png", "ask": "What?", "truth": "x", "who": "p1", "no": "q7"}]
    (folder / "tables").mkdir()
    (found,) = asked(
        written(folder / "tables" / "q.csv", rows),
        type="short_answer",
        image_folder=str(folder),
        image_field="file",
        question_field="ask",
        answer_field="truth",
        group_field="who",
        id_field="no",
    )
    assert (found.id, found.group, found.picture) == ("q7", "p1", "b.png")


def test_questions_without_pictures_are_asked_as_text(folder):
    path = written(folder / "q.jsonl", [{"question": "2 + 2?", "answer": 4}])
    (found,) = asked(path, type="short_answer", image_field=None)
    assert found.load is None and found.picture == "" and found.group == "1"
    assert found.details == {"answers": ["4"]}


LETTERED = [
    ({"options": ["red", "blue"], "answer": "B"}, "B", ["red", "blue"]),
    ({"options": ["red", "blue"], "answer": "blue"}, "B", ["red", "blue"]),
    ({"options": ["2", "3", "4"], "answer": 3}, "B", ["2", "3", "4"]),
    ({"A": "x", "B": "y", "C": "z", "answer": "C"}, "C", ["x", "y", "z"]),
    ({"options": ["B", "A"], "answer": "C"}, None, []),
    ({"options": ["B", "A"], "answer": "B"}, None, []),  # the letter B and the text B
]


@pytest.mark.parametrize(("row", "target", "options"), LETTERED)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_options_are_a_list_or_columns_and_the_answer_a_letter_or_a_text(
    folder, ending, row, target, options
):
    path = written(folder / f"q.{ending}", [{"image": "a.png", "question": "Which?", **row}])
    if target is None:
        with pytest.raises(InputError, match=r"(row|line) 1.*answer '.' is (none|several) of the"):
            asked(path, type="letter")
        return
    (found,) = asked(path, type="letter")
    assert found.target == target and list(found.details["options"].values()) == options


def test_a_protocol_or_the_config_says_how_it_is_asked(folder):
    rows = [{"image": "a.png", "question": "Which?", "options": ["x", "y"], "answer": "A"}]
    path = str(written(folder / "q.json", rows))
    own = QuestionsBenchmark(path=path, type="letter")
    prompt = next(own.questions()).prompt
    assert prompt == (
        "Which?\nA. x\nB. y\nAnswer with the option's letter from the given choices directly."
    )

    def changed(**fields) -> QuestionsBenchmark:
        return QuestionsBenchmark(path=path, type="letter", **fields)

    other = changed(prompt="{question}\\n{inline_options}", rule="exact", max_new_tokens=3)
    question = next(other.questions())
    assert question.prompt == "Which?\n(A) x (B) y" and question.max_new_tokens == 3
    assert other.predict(question, "A").score == 1 and other.predict(question, "A.").score == 0
    assert own.protocol_name == changed(rule="letter_or_text").protocol_name == "llava15"
    assert other.protocol_name.startswith("llava15.") and len(other.protocol_name) == 16
    with pytest.raises(InputError, match=r"rule=exat: no such rule.*Did you mean 'exact'"):
        changed(rule="exat").check(None)
    with pytest.raises(InputError, match=r"no text \{quesion\}.*Did you mean 'question'"):
        changed(prompt="{quesion}").check(None)


def test_every_type_has_a_part_in_the_protocols_and_its_rule_is_known():
    assert len(SECTIONS) == len(RULES) == 4
    for type in RULES:
        for name in ("llava15", "tiny", *(() if type == "judged" else ("lmms_eval", "vlmevalkit"))):
            one = QuestionsBenchmark(type=type, protocol=name)
            assert one.rules_of_protocol.rule in RULES[type] and one.plain_protocol == name


ANSWERS = [  # type, row, what the model says, right
    ("yes_no", {"answer": "yes"}, "Yes, it is.", True),
    ("yes_no", {"answer": "no"}, "There is not.", True),
    ("yes_no", {"answer": "no"}, "Perhaps", False),  # POPE: everything else is yes
    ("letter", {"options": ["cat", "dog"], "answer": "B"}, "(B)", True),
    ("letter", {"options": ["cat", "dog"], "answer": "B"}, "the answer is B.", True),
    ("letter", {"options": ["cat", "dog"], "answer": "B"}, "Dog.", True),
    ("letter", {"options": ["cat", "dog"], "answer": "B"}, "A dog", False),
    ("short_answer", {"answer": "two"}, "2", True),
    ("short_answer", {"answer": "The red one"}, "red one.", True),
    ("short_answer", {"answer": ["red", "dark red"]}, "Dark red", True),
    ("short_answer", {"answer": ["red", "dark red"]}, "light red", False),
    ("short_answer", {"answer": "isnt"}, "isn't", True),
]


@pytest.mark.parametrize(("type", "row", "text", "right"), ANSWERS)
def test_answers_are_read_by_the_rules_of_known_benchmarks(folder, type, row, text, right):
    path = written(folder / "q.jsonl", [{"image": "a.png", "question": "?", **row}])
    benchmark = QuestionsBenchmark(path=str(path), type=type, protocol="tiny")
    found = benchmark.predict(next(benchmark.questions()), text)
    assert found.score == float(right)


def test_the_soft_rule_is_textvqas_and_needs_ten_answers(folder):
    people = ["red"] * 2 + ["blue"] * 8
    path = written(folder / "q.jsonl", [{"image": "a.png", "question": "?", "answer": people}])
    benchmark = QuestionsBenchmark(path=str(path), type="short_answer", rule="vqa_soft")
    question = next(benchmark.questions())
    # Two who said red see one other (1/3), eight see two (2/3).
    assert benchmark.predict(question, "red").score == pytest.approx((2 / 3 + 8 * 2 / 3) / 10)
    assert benchmark.predict(question, "Blue.").score == 1
    path = written(folder / "q.jsonl", [{"image": "a.png", "question": "?", "answer": people[1:]}])
    with pytest.raises(InputError, match=r"line 1: field 'answer': 9 answers, .* needs 10"):
        benchmark.check(None)


def test_metrics_are_those_of_the_type_and_by_category(folder):
    rows = [
        {"image": f"{'ab'[i % 2]}.png", "question": "?", "answer": answer, "topic": topic}
        for i, (answer, topic) in enumerate(
            [("yes", "x"), ("yes", "x"), ("no", "x"), ("no", "y"), ("yes", "y")]
        )
    ]
    path = written(folder / "q.csv", rows)
    benchmark = QuestionsBenchmark(path=str(path), category_field="topic", protocol="tiny")
    said = ["yes", "no", "yes", "no", "yes"]
    predictions = [
        benchmark.predict(q, text) for q, text in zip(benchmark.questions(), said, strict=True)
    ]
    found = {
        (one.split, one.metric): one
        for one in scores(
            benchmark.metrics, predictions, model="base", benchmark="q", protocol="tiny"
        )
    }
    values = {key: round(one.value, 2) for key, one in found.items()}
    assert values["all", "accuracy"] == 60 and values["all", "yes_rate"] == 60
    assert values["all", "f1"] == 66.67  # tp 2, fp 1, fn 1
    assert values["x", "accuracy"] == 33.33 and values["y", "accuracy"] == 100
    assert values["all", "unparsed"] == 0
    assert found["all", "accuracy"].n == 5


def test_what_is_resampled_is_the_picture_or_the_named_group(folder):
    answers = ["yes", "no"] * 8
    rows = [
        {"image": f"{'ab'[i % 2]}.png", "question": "?", "answer": a, "who": f"p{i}"}
        for i, a in enumerate(answers)
    ]
    path = written(folder / "q.csv", rows)

    def interval(**fields) -> float:
        benchmark = QuestionsBenchmark(path=str(path), protocol="tiny", **fields)
        found = [benchmark.predict(q, "yes") for q in benchmark.questions()]
        own = scores(benchmark.metrics, found, model="m", benchmark="q", protocol="t")
        first = next(one for one in own if one.metric == "accuracy")
        return first.high - first.low

    # Of two pictures one is right throughout: 0 to 100. Of sixteen people half are.
    assert interval() == 100
    assert 30 < interval(group_field="who") < 70


GOOD = '{"image": "a.png", "question": "?", "answer": "yes"}\n'
WRONG = [
    ("q.csv", "image,question\na.png,?\n", {}, r"q\.csv: the header: column 'answer' is missing"),
    ("q.csv", "image;question;answer\n", {}, r"header: .*separated by ';', a comma is needed"),
    ("q.csv", "image,image,question,answer\n", {}, r"two columns are called 'image'"),
    ("q.csv", "image,question,answer\n", {}, r"there is no question in .*q\.csv"),
    ("q.csv", "image,question,answer\na.png,?\n", {}, r"row 1 \(line 2\): has 2 columns, the .* 3"),
    ("q.csv", 'image,question,answer\na.png,"?,no\n', {}, r"line 2: is no CSV"),
    ("q.csv", "image,question,answer\na.png,,no\n", {}, r"row 1 .*'question': empty"),
    ("q.csv", "image,question,answer\na.png,?,maybe\n", {}, r"'maybe' is none of yes, no"),
    ("q.csv", "image,question,answer\nc.png,?,no\n", {}, r"row 1.*missing picture.*c\.png"),
    ("q.csv", "image,question,answer\n../a.png,?,no\n", {}, r"row 1.*lies outside"),
    ("q.csv", "", {}, r"q\.csv"),
    ("q.jsonl", GOOD + "{", {}, r"q\.jsonl: line 2: "),
    ("q.jsonl", GOOD + GOOD.replace("question", "query"), {}, r"line 2: field 'question': missing"),
    ("q.jsonl", GOOD, {"id_field": "nr"}, r"line 1: field 'nr': missing"),
    ("q.jsonl", GOOD * 2, {"id_field": "image"}, r"line 2: duplicate id 'a\.png', as in .* line 1"),
    ("q.jsonl", GOOD, {"type": "letter"}, r"line 1: field 'options': from two to 26"),
    ("q.jsonl", GOOD.replace('"yes"', "[]"), {"type": "short_answer"}, r"an answer is needed"),
    ("q.jsonl", GOOD, {"category_field": "answer"}, None),
    ("q.jsonl", GOOD.replace("yes", "all"), {"category_field": "answer", "type": "short_answer"},
     r"'all' is what the whole table is called"),
    ("q.jsonl", GOOD.replace("?", "<image>"), {}, r"line 1: .*<image>"),
    ("q.txt", GOOD, {}, r"benchmark\.questions\.path: .*\.csv, \.tsv, \.jsonl, \.json is needed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "fields", "said"), WRONG)
def test_a_broken_table_is_refused_by_file_and_row(folder, name, text, fields, said):
    path = folder / name
    path.write_text(text)
    benchmark = QuestionsBenchmark(path=str(path), protocol="tiny", **fields)
    if said is None:
        benchmark.check(None)
        return
    with pytest.raises(InputError, match=said):
        benchmark.check(None)


def test_a_path_that_is_not_there_is_told_with_the_nearest(folder):
    path = written(folder / "receipts.csv", YES_NO)
    with pytest.raises(InputError, match=r"benchmark\.questions\.path: .*Did you mean .*receipts"):
        QuestionsBenchmark(path=str(path.with_name("receipt.csv"))).check(None)
    with pytest.raises(InputError, match=r"benchmark\.questions\.image_folder: there is no folder"):
        QuestionsBenchmark(path=str(path), image_folder=str(folder / "x")).check(None)


def test_the_key_is_made_of_contents_and_never_of_places(folder, tmp_path):
    path = written(folder / "q.csv", YES_NO)

    def identity(path: Path, **fields) -> dict:
        return QuestionsBenchmark(path=str(path), **fields).identity(file_sha256, None)

    first = identity(path)
    elsewhere = tmp_path / "moved" / "there"
    shutil.copytree(folder, elsewhere, ignore=shutil.ignore_patterns("moved"))
    assert identity((elsewhere / "q.csv").rename(elsewhere / "other.csv")) == first
    assert identity(elsewhere / "other.csv", image_folder=str(folder)) == first
    written(elsewhere / "other.csv", YES_NO[:2])
    assert identity(elsewhere / "other.csv") != first
    written(elsewhere / "other.csv", YES_NO)
    assert identity(elsewhere / "other.csv") == first
    Image.new("RGB", (8, 8), "green").save(elsewhere / "b.png")
    assert identity(elsewhere / "other.csv") != first
    prompted = identity(path, prompt="{question} Yes or no?")
    assert prompted != first and identity(path, rule="exact") not in (first, prompted)
    (folder / "judge.txt").write_text("{question} {target} {answer}")
    assert identity(path, judge_prompt=str(folder / "judge.txt")) == first, "it is the judge's"


def test_a_config_is_refused_by_field_with_the_nearest_name():
    config = {"benchmark": {"questions": {"kind": "questions", "path": "q.csv"}}}
    own = config["benchmark"]["questions"]
    for field, value, said in [
        ("type", "yesno", r"benchmark\.questions\.type=yesno.*Did you mean 'yes_no'"),
        ("answer_colum", "x", r"benchmark\.questions\.answer_colum: no such field.*'answer_field'"),
        ("max_new_tokens", 0, r"benchmark\.questions\.max_new_tokens=0: .*greater than or equal"),
    ]:
        changed = {"benchmark": {"questions": own | {field: value}}}
        base = {name: {} for name in ("dpo", "machine")}
        with pytest.raises(InputError, match=said):
            parse({**composed_parts(), **base, **changed})
    with pytest.raises(InputError, match=r"benchmark\.questions\.path: must be set"):
        composed("benchmark=questions").experiment.benchmark["questions"].load(None)


def composed_parts() -> dict:
    """What a config needs beside benchmarks."""
    kinds = {"method": "seva", "model": "tiny", "data": "shapes", "generation": "hf"}
    return {name: {"kind": kind} for name, kind in kinds.items()} | {"tracker": {"kind": "none"}}


@pytest.fixture
def popes(samples, tmp_path) -> Path:
    """A table of the questions of POPE's first split."""
    text = (samples / "pope" / "coco_pope_random.json").read_text()
    rows = json.loads(text) if text.startswith("[") else [*map(json.loads, text.splitlines())]
    return written(
        tmp_path / "popes.csv",
        [{"picture": r["image"], "text": r["text"], "label": r["label"]} for r in rows],
    )


def test_a_yaml_of_ones_own_runs_and_scores_as_the_official_benchmark_does(
    samples, tmp_path, popes, cli
):
    (tmp_path / "conf" / "benchmark").mkdir(parents=True)
    (tmp_path / "conf" / "benchmark" / "popes.yaml").write_text(
        "# @package benchmark.popes\n"
        "kind: questions\npath: popes.csv\ntype: yes_no\n"
        f"image_folder: {samples / 'coco' / 'val2014'}\n"
        "image_field: picture\nquestion_field: text\nanswer_field: label\n"
    )
    words = ["--config-dir", "conf", "+aug=moco", "tracker=none", "benchmark=[popes,pope]"]
    words += [f"data_root={samples}", "stop_after=evaluate.base", "machine.device=cpu"]
    planned = cli(*words, "dry_run=true")
    assert planned.returncode == 0, planned.stderr
    assert "evaluate.base.popes" in planned.stdout
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    assert not report["deltas"]
    found = {(s["benchmark"], s["split"], s["metric"]): s for s in report["scores"]}
    for metric in ("accuracy", "f1", "precision", "recall", "yes_rate"):
        own, official = found["popes", "all", metric], found["pope", "random", metric]
        assert (own["value"], own["n"]) == (official["value"], official["n"])
        assert (own["low"], own["high"]) == (official["low"], official["high"])
        assert own["protocol"] == "tiny"
    names = ["evaluate.base.popes", "evaluate.base.pope"]
    mine, theirs = (
        [
            one.text
            for one in read_jsonl(
                tmp_path / "runs" / "latest" / name / "predictions.jsonl", Prediction
            )
            if name.endswith("popes") or one.type == "random"
        ]
        for name in names
    )
    assert mine == theirs
    popes.write_text(popes.read_text().replace(",no", ",perhaps", 1))
    broken = cli(*words)
    assert broken.returncode == 2 and "popes.csv: row " in broken.stderr
    assert len(list((tmp_path / "runs").glob("20*"))) == 1, "nothing was begun"


def test_answers_are_judged_in_our_words_or_in_ones_own(samples, tmp_path, popes):
    prompt = tmp_path / "judge.txt"
    prompt.write_text(
        "Q: {question}\n\nRight answer: {target}\nGiven answer: {answer}\nFrom 0 to 1:"
    )
    words = ["benchmark=questions", f"benchmark.questions.path={popes}", "judge.model=judge"]
    words += ["image_field=picture", "question_field=text", "answer_field=label", "type=judged"]
    words += [f"image_folder={samples / 'coco' / 'val2014'}"]
    words = [w if "." in w or "benchmark=" in w else f"benchmark.questions.{w}" for w in words]
    words = [f"benchmark.questions.{w}" if w.startswith("image_folder") else w for w in words]
    with judge() as endpoint:
        first = run(asking_judge(endpoint, *words), tmp_path / "runs", samples)
        own = [*words, f"benchmark.questions.judge_prompt={prompt}"]
        second = run(asking_judge(endpoint, *own), tmp_path / "runs", samples)
        said = [body["messages"][0]["content"] for body in endpoint.bodies]
    assert any(one.startswith("Q: Is there") and one.endswith("From 0 to 1:") for one in said)
    assert [stage.cached for stage in second.stages] == [True, False], "the model is asked once"
    assert {s.metric for s in first.scores} == {"score", "unjudged"}
    assert {s.protocol for s in first.scores} == {"tiny+own.judge"}
    (protocol,) = {s.protocol for s in second.scores}
    assert protocol.startswith("tiny+prompt.") and protocol.endswith("+judge")
    assert [s.value for s in first.scores] == [s.value for s in second.scores]
    with pytest.raises(InputError, match=r"benchmark\.questions: a judge scores its answers"):
        composed(*[word for word in words if "judge.model" not in word])
    prompt.write_text("{question} {answer}")
    with pytest.raises(InputError, match=r"judge_prompt: .*\{target\} is missing"):
        run(asking_judge(endpoint, *own), tmp_path / "runs", samples)


def test_data_check_looks_at_a_table(samples, popes, capsys):
    fields = ["image_field=picture", "question_field=text", "answer_field=label"]
    fields.append(f"image_folder={samples / 'coco' / 'val2014'}")
    assert data_main(["check", "--deep", "--questions", str(popes), *fields]) == 0
    said = capsys.readouterr().out
    questions = len(popes.read_text().splitlines()) - 1
    assert f"popes        found    {questions} questions (yes_no)" in said and "opened" in said
    assert data_main(["check", "--questions", str(popes), *fields[1:]]) == 2
    assert "column 'image' is missing" in capsys.readouterr().out
    assert data_main(["check", "--questions", str(popes), "typ=letter"]) == 2
    assert "typ: no such field. Did you mean 'type'?" in capsys.readouterr().err
    assert data_main(["check", "--questions", str(popes), "type"]) == 2
    assert "FIELD=VALUE is needed" in capsys.readouterr().err
    own = popes.with_name("own.yaml")
    own.write_text(
        f"kind: questions\npath: {popes}\n" + "\n".join(w.replace("=", ": ") for w in fields)
    )
    assert data_main(["check", "--questions", str(own)]) == 0


def test_it_is_one_of_the_benchmarks():
    assert BENCHMARKS["questions"] is QuestionsBenchmark
