"""Official files: read whole before anything runs, refused by file and row, hashed by content."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.digests import FileDigests
from seva_exp.errors import InputError, StageError

POPE = "pope/coco_pope_popular.json"
TEXTVQA = "textvqa/TextVQA_0.5.1_val.json"
OCR = "textvqa/llava_textvqa_val_v051_ocr.jsonl"
GQA, MMB = "gqa/GQA_TestDev_Balanced.tsv", "mmbench_en/mmbench_dev_20230712.tsv"
MME = "mme/MME_Benchmark_release_version"
MMVET, LLAVA = "mmvet/mm-vet.json", "llava_bench/questions.jsonl"
REGIONS = "vg/region_descriptions.json"
INSTANCES = "coco/annotations/instances_val2014.json"
Change = Callable[[Path], None]


def whole(change: Callable[[object], None]) -> Change:
    """A change of a JSON file's content."""

    def apply(file: Path) -> None:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return apply


def line(number: int, **fields) -> Change:
    """New fields of one line of JSON lines; None takes a field away."""

    def apply(file: Path) -> None:
        lines = file.read_text().splitlines()
        row = json.loads(lines[number - 1]) | fields
        lines[number - 1] = json.dumps({k: v for k, v in row.items() if v is not None})
        file.write_text("\n".join(lines))

    return apply


def cell(number: int, **fields) -> Change:
    """New cells of one row of a table."""

    def apply(file: Path) -> None:
        with file.open(encoding="utf-8", newline="") as source:
            csv.field_size_limit(1 << 30)
            rows = list(csv.DictReader(source, delimiter="\t"))
        rows[number - 1] |= fields
        rows = [{k: v for k, v in row.items() if v is not None} for row in rows]
        names = [name for name in rows[number - 1]]
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, names, delimiter="\t", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    return apply


def entry(key: str, **fields) -> Change:
    """New fields of one entry of a JSON object; None takes a field away."""

    def change(content: dict) -> None:
        content[key] |= fields
        content[key] = {k: v for k, v in content[key].items() if v is not None}

    return whole(change)


def row(number: int, under: str, **fields) -> Change:
    """The same for the list ``under`` a key of a JSON object ("" for a list)."""

    def change(content) -> None:
        rows = content[under] if under else content
        found = rows[number - 1] | fields
        rows[number - 1] = {k: v for k, v in found.items() if v is not None}

    return whole(change)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def cut_within_the_last_picture(file: Path) -> None:
    """GQA's samples end with one: each row still has all its columns."""
    file.write_bytes(file.read_bytes()[:-200])


def gone(file: Path) -> None:
    file.unlink()


def text(content: str) -> Change:
    return lambda file: file.write_text(content) and None


def raw(content: bytes) -> Change:
    return lambda file: file.write_bytes(content) and None


def twice(key: str) -> Change:
    """The entry ``key`` of a JSON object a second time."""

    def apply(file: Path) -> None:
        content = json.loads(file.read_text())
        file.write_text(f'{{"{key}": {json.dumps(content[key])}, {file.read_text().lstrip()[1:]}')

    return apply


WRONG: list[tuple[str, str, Change, list[str]]] = [
    ("pope", POPE, line(3, image="COCO_val2014_9.jpg"), ["line 3", "missing picture", "_9.jpg"]),
    ("pope", POPE, line(3, label=None), ["line 3", "'label'", "missing"]),
    ("pope", POPE, line(3, label="maybe"), ["line 3", "'maybe' is none of yes, no"]),
    ("pope", POPE, line(3, question_id=2), ["line 3", "duplicate id 'popular-2'", "line 2"]),
    ("pope", POPE, cut, ["line 24", "not JSON"]),
    ("pope", POPE, gone, ["no such file"]),
    ("pope", POPE, line(3, text=""), ["line 3", "'text'", "empty"]),
    ("pope", POPE, line(3, text="Is <image> there?"), ["line 3", "placeholder"]),
    ("pope", POPE, line(3, image="../../x.jpg"), ["line 3", "lies outside"]),
    ("mme", f"{MME}/existence/0000.jpg", gone, ["existence/0000.txt", "line 1", "missing picture"]),
    ("mme", f"{MME}/existence/0000.txt", text("Is it?\n"), ["line 1", "a tab between"]),
    ("mme", f"{MME}/existence/0000.txt", text("Is it?\tYes\n"), ["has 1 questions, MME has 2"]),
    ("mme", f"{MME}/existence/0000.txt", text("A?\tYes\nB?\tNo\nC?\tNo\n"),
     ["has 3 questions, MME has 2"]),
    ("mme", f"{MME}/existence/0000.txt", text("A?\tYes\nB?\tMaybe\n"),
     ["line 2", "'Maybe' is none"]),
    ("mmbench_en", MMB, cell(1, image=""), ["row 1", "'image'"]),
    ("mmbench_en", MMB, cell(6, image="77"), ["row 6 (line", "missing picture", "'77'"]),
    ("mmbench_en", MMB, cell(1, hint=None, answer=None), ["row 1", "column 'answer' is missing"]),
    ("mmbench_en", MMB, cell(6, answer="E"), ["row 6", "'E' is none of the choices A, B, C, D"]),
    ("mmbench_en", MMB, cell(6, index="0"), ["row 6", "duplicate id '0'", "row 1"]),
    ("mmbench_en", MMB, cell(6, index="x"), ["row 6", "'x' is no whole number"]),
    ("mmbench_en", MMB, cell(6, B="", C="", D=""), ["row 6", "fewer than two choices"]),
    ("mmbench_en", MMB, cut, ["row 72"]),
    ("mmbench_cn", "mmbench_cn/mmbench_dev_cn_20231003.tsv", cell(2, answer="F"), ["row 2", "'F'"]),
    ("gqa", GQA, cell(2, index="0"), ["row 2", "duplicate id '0'"]),
    ("gqa", GQA, cell(2, answer=""), ["row 2", "'answer'", "empty"]),
    ("gqa", GQA, cell(2, image="999"), ["row 2", "missing picture"]),
    ("scienceqa", "scienceqa/images/test/2/image.png", gone, ["entry '2'", "missing picture"]),
    ("scienceqa", "scienceqa/problems.json", entry("2", choices=None), ["entry '2'", "'choices'"]),
    ("scienceqa", "scienceqa/problems.json", entry("2", answer=4), ["entry '2'", "4 is no place"]),
    ("scienceqa", "scienceqa/problems.json", twice("2"), ["'2'", "duplicate id"]),
    ("scienceqa", "scienceqa/problems.json", cut, ["cut off"]),
    ("scienceqa", "scienceqa/pid_splits.json", text('{"test": ["77"]}'), ["'77'"]),
    ("scienceqa", "scienceqa/pid_splits.json", text('{"test": ["1", "1"]}'), ["duplicate id '1'"]),
    ("seed", "seed/SEED-Bench-image/0002.jpg", gone, ["row 7 of 'questions'", "missing picture"]),
    ("seed", "seed/SEED-Bench.json", row(2, "questions", choice_d=None), ["row 2", "'choice_d'"]),
    ("seed", "seed/SEED-Bench.json", row(2, "questions", answer="E"), ["row 2", "'E' is none"]),
    ("seed", "seed/SEED-Bench.json", row(2, "questions", question_id="0"),
     ["row 2", "duplicate id"]),
    ("seed", "seed/SEED-Bench.json", cut, ["cut off"]),
    ("textvqa", TEXTVQA, row(2, "data", image_id="ff"), ["row 2 of 'data'", "missing picture"]),
    ("textvqa", TEXTVQA, row(2, "data", answers=["x"]), ["row 2", "1 answers, 10 are needed"]),
    ("textvqa", TEXTVQA, row(2, "data", answers=None), ["row 2", "'answers'", "missing"]),
    ("textvqa", TEXTVQA, row(2, "data", question_id=0), ["row 2", "duplicate id '0'"]),
    ("textvqa", TEXTVQA, cut, ["cut off"]),
    ("textvqa", OCR, gone, ["no such file"]),
    ("textvqa", OCR, line(2, question_id="zz"), ["TextVQA_0.5.1_val.json", "row 2", "no tokens"]),
    ("chartqa", "chartqa/test/png/0002.png", gone, ["row 3", "missing picture"]),
    ("chartqa", "chartqa/test/test_human.json", row(2, "", label=None), ["row 2", "'label'"]),
    ("chartqa", "chartqa/test/test_human.json", cut, ["row 12", "cut off"]),
    ("mathvista", "mathvista/images/2.jpg", gone, ["entry '2'", "missing picture"]),
    ("mathvista", "mathvista/testmini.json", entry("2", answer="pink"),
     ["entry '2'", "'pink' is none"]),
    ("mathvista", "mathvista/testmini.json", entry("2", query=None), ["entry '2'", "'query'"]),
    ("mathvista", "mathvista/testmini.json", entry("2", answer_type="x"),
     ["entry '2'", "'x' is none"]),
    ("mathvista", "mathvista/testmini.json", twice("3"), ["'3'", "duplicate id"]),
    ("mathvista", "mathvista/testmini.json", cut, ["cut off"]),
    ("mmvet", "mmvet/images/v1_2.jpg", gone, ["entry 'v1_", "missing picture", "v1_2.jpg"]),
    ("mmvet", MMVET, entry("v1_2", capability=["see"]), ["entry 'v1_2'", "'see' is none of rec"]),
    ("mmvet", MMVET, entry("v1_2", capability=[]), ["entry 'v1_2'", "no capability"]),
    ("mmvet", MMVET, entry("v1_2", capability=None), ["entry 'v1_2'", "'capability'", "missing"]),
    ("mmvet", MMVET, entry("v1_2", answer=None), ["entry 'v1_2'", "'answer'", "missing"]),
    ("mmvet", MMVET, twice("v1_2"), ["'v1_2'", "duplicate id"]),
    ("mmvet", MMVET, cut, ["cut off"]),
    ("mmvet", "mmvet/judge_prompt.txt", gone, ["no such file", "own_prompts"]),
    ("mmvet", "mmvet/judge_prompt.txt", cut, ["the last line", "score from 0 to 1"]),
    ("mmvet", "mmvet/judge_prompt.txt", text("A | b | c | d\n"), ["the last line", "score from"]),
    ("llava_bench", LLAVA, line(2, image="x.jpg"), ["line 2", "no context of picture 'x.jpg'"]),
    ("llava_bench", LLAVA, line(2, category="math"), ["line 2", "'math' is none of conv"]),
    ("llava_bench", LLAVA, line(2, question_id=0), ["line 2", "duplicate id '0'", "line 1"]),
    ("llava_bench", LLAVA, line(2, question_id=777), ["line 2", "no answer to question '777'"]),
    ("llava_bench", LLAVA, line(2, text=None), ["line 2", "'text'", "missing"]),
    ("llava_bench", LLAVA, cut, ["not JSON"]),
    ("llava_bench", "llava_bench/context.jsonl", line(2, caption=None), ["line 2", "'caption'"]),
    ("llava_bench", "llava_bench/answers_gpt4.jsonl", line(2, text=" "), ["line 2", "'text'"]),
    ("llava_bench", "llava_bench/answers_gpt4.jsonl", gone, ["no such file"]),
    ("llava_bench", "llava_bench/images/002.jpg", gone, ["missing picture", "002.jpg"]),
    ("llava_bench", "llava_bench/rule.json", gone, ["no such file", "haotian-liu", "own_prompts"]),
    ("llava_bench", "llava_bench/rule.json", text("{}"), ["'llava_bench_conv' is missing"]),
    ("llava_bench", "llava_bench/rule.json", entry("llava_bench_detail", role=None),
     ["entry 'llava_bench_detail'", "'role'"]),
    ("llava_bench", "llava_bench/rule.json", cut, ["cut off"]),
    ("shr", "vg/VG_100K/3.jpg", gone, ["row 4", "missing picture", "3.jpg"]),
    ("shr", "shr/val_images_final.json", row(2, "", image_id=77), ["row 2", "no picture '77'"]),
    ("shr", "shr/val_images_final.json", row(2, "", image_id=0), ["row 2", "duplicate id '0'"]),
    ("shr", "shr/val_images_final.json", cut, ["cut off"]),
    ("shr", "vg/image_data.json", row(2, "", url=None), ["row 2", "'url'", "missing"]),
    ("shr", REGIONS, row(2, "", regions=[]), ["no regions of picture '1'"]),
    ("shr", REGIONS, row(2, "", regions=None), ["row 2", "'regions'", "missing"]),
    ("shr", REGIONS, row(2, "", regions=[{"image_id": 1, "x": 2}]), ["row 2", "x, y, width"]),
    ("shr", REGIONS, row(2, "", regions="x"), ["row 2", "a list of objects"]),
    ("shr", REGIONS, cut, ["cut off"]),
    ("shr", "shr/shr_factual_part2.jsonl", gone, ["no such file"]),
    ("shr", "shr/shr_factual_part1.jsonl", text('{"0": [[]]}'), ["line 1", "a list of texts"]),
    ("chair", "coco/val2014/COCO_val2014_000000000002.jpg", gone,
     ["row 3 of 'images'", "missing picture"]),
    ("chair", INSTANCES, row(2, "annotations", category_id=99),
     ["row 2 of 'annotations'", "'99' is none"]),
    ("chair", INSTANCES, row(2, "images", file_name=None), ["row 2 of 'images'", "'file_name'"]),
    ("chair", INSTANCES, row(2, "images", id=0), ["duplicate id '0'"]),
    ("chair", INSTANCES, cut, ["cut off"]),
    ("chair", "chair/synonyms.txt", text("cat\n"), ["'circle' is not in chair/synonyms.txt"]),
    ("chair", "chair/synonyms.txt", gone, ["no such file"]),
    ("chair", "chair/synonyms.txt", text(" \n,\n"), ["synonyms.txt", "holds no synonyms"]),
    ("chair", "chair/synonyms.txt", raw(b"\xff\xfe"), ["synonyms.txt", "no UTF-8"]),
    ("pope", POPE, text(""), ["coco_pope_popular.json", "is empty"]),
    ("chartqa", "chartqa/test/test_human.json", text("[]"), ["test_human.json", "is empty"]),
    ("mme", f"{MME}/existence/0000.txt", text(""), ["0000.txt", "is empty"]),
    ("mmbench_en", MMB, text("\n\n"), ["is empty"]),
    ("mmbench_en", MMB, cell(6, index="²"), ["row 6", "'²' is no whole number"]),
    ("gqa", GQA, cut_within_the_last_picture, ["row 30 (line 31)", "cut off"]),
    ("scienceqa", "scienceqa/pid_splits.json", text('{"test": [["1"]]}'), ["['1']"]),
    ("scienceqa", "scienceqa/problems.json", entry("2", answer=True), ["True is no place"]),
    ("mathvista", "mathvista/testmini.json", entry("2", precision=float("inf")),
     ["entry '2'", "'precision'"]),
    ("llava_bench", "llava_bench/context.jsonl", line(2, image="000.jpg"),
     ["context.jsonl", "line 2", "duplicate id '000.jpg'"]),
    ("llava_bench", "llava_bench/answers_gpt4.jsonl", line(2, question_id=0),
     ["answers_gpt4.jsonl", "line 2", "duplicate id '0'"]),
    ("shr", "vg/image_data.json", row(2, "", image_id=0), ["row 2", "duplicate id '0'"]),
]  # fmt: skip


def check_all(benchmark, root: Path) -> None:
    """With what a judge's questions are made of."""
    benchmark.check(root)
    if benchmark.judged:
        benchmark.judging(root)


@pytest.mark.parametrize(
    ("kind", "file", "change", "said"), WRONG, ids=[f"{w[0]}-{'-'.join(w[3])}" for w in WRONG]
)
def test_a_fault_is_refused_with_file_and_row(samples, tmp_path, kind, file, change, said):
    root = tmp_path / "root"
    shutil.copytree(samples, root)
    benchmark = OFFICIAL[kind](kind=kind)
    check_all(benchmark, root)
    change(root / file)
    with pytest.raises(InputError) as caught:
        check_all(benchmark, root)
    assert str(root) in str(caught.value)
    for word in said:
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", sorted(OFFICIAL))
def test_the_samples_are_whole_and_questions_travel(kind, samples):
    """To another process as well: several may ask together."""
    questions = list(OFFICIAL[kind](kind=kind).questions(samples))
    assert 12 <= len(questions) <= 100
    again = pickle.loads(pickle.dumps(questions))
    assert [q.prompt for q in again] == [q.prompt for q in questions]
    assert again[0].load().size == (72, 72)
    assert len({q.id for q in questions}) == len(questions)


@pytest.mark.parametrize("kind", ["mmbench_en", "mmbench_cn"])
def test_rotations_of_a_question_are_one_group_on_one_picture(kind, samples):
    questions = list(OFFICIAL[kind](kind=kind).questions(samples))
    groups: dict[str, list] = {}
    for question in questions:
        groups.setdefault(question.group, []).append(question)
    for rotations in groups.values():
        assert len(rotations) == 4
        assert {q.target for q in rotations} == set("ABCD")
        assert len({q.details["options"][q.target] for q in rotations}) == 1
        assert len({q.load.__self__ for q in rotations}) == 1


def test_questions_on_one_picture_are_one_group(samples):
    pictures: dict[str, set] = {}
    for question in OFFICIAL["pope"](kind="pope").questions(samples):
        pictures.setdefault(question.group, set()).add(question.load.__self__)
    assert len(pictures) == 12
    assert all(len(found) == 1 for found in pictures.values())


def test_an_option_may_be_called_none(samples, tmp_path):
    root = shutil.copytree(samples, tmp_path / "root")
    cell(6, A="None", answer="A")(root / MMB)
    asked = list(OFFICIAL["mmbench_en"](kind="mmbench_en").questions(root))[5]
    assert (asked.details["options"]["A"], asked.target) == ("None", "A")


def test_what_is_no_question_on_an_image_is_left_out(samples):
    seed = [q.id for q in OFFICIAL["seed"](kind="seed").questions(samples)]
    science = [q.id for q in OFFICIAL["scienceqa"](kind="scienceqa").questions(samples)]
    assert "video" not in seed
    assert "0" not in science


@pytest.mark.parametrize("kind", sorted(OFFICIAL))
def test_a_moved_folder_changes_no_key_and_content_does(kind, samples, tmp_path):
    benchmark, digests = OFFICIAL[kind](kind=kind), FileDigests(tmp_path)
    want = benchmark.identity(digests, samples)
    moved = tmp_path / "elsewhere"
    shutil.copytree(samples, moved)
    assert benchmark.identity(digests, moved) == want
    assert str(samples) not in json.dumps(want)
    loaded = benchmark.load(moved)
    for changed in [*loaded.files, *(picture.path for picture in loaded.pictures[:1])]:
        kept = changed.read_bytes()
        changed.write_bytes(kept + (b"" if changed.suffix == ".jpg" else b"\n") + b" ")
        try:
            assert benchmark.identity(digests, moved) != want, changed
        except InputError:
            assert changed.suffix == ".tsv", "a line with one blank is a row of one column"
        changed.write_bytes(kept)


def test_a_protocol_is_part_of_the_key(samples, tmp_path):
    digests = FileDigests(tmp_path)
    found = {
        json.dumps(OFFICIAL["pope"](kind="pope", protocol=name).identity(digests, samples))
        for name in ("llava15", "lmms_eval", "vlmevalkit", "tiny")
    }
    assert len(found) == 4


def test_files_are_read_once_until_they_change(samples, tmp_path, monkeypatch):
    root = tmp_path / "root"
    shutil.copytree(samples, root)
    benchmark = OFFICIAL["pope"](kind="pope")
    first = benchmark.load(root)
    assert benchmark.load(root) is first
    file = root / POPE
    os.utime(file, ns=(1, 1))
    second = benchmark.load(root)
    assert second is not first
    (root / "coco/val2014/new.jpg").write_bytes(b"")
    os.utime(root / "coco/val2014", ns=(1, 1))
    assert benchmark.load(root) is not second


def as_table(root: Path, file: str, rows: list[dict]) -> Path:
    from seva_exp.benchmarks.samples.cases import cases, write_table

    held = [{"index": i, **r, "image": cases(2)[i % 2].base64} for i, r in enumerate(rows)]
    write_table(root / file, held)
    return root


TABLES: dict[str, tuple[str, list[dict], list[tuple[str, str]]]] = {
    "pope": (
        "POPE.tsv",
        [{"question": "Is there a dog?", "answer": "Yes", "category": "random,popular"}],
        [("random", "yes"), ("popular", "yes")],
    ),
    "mme": (
        "MME.tsv",
        [
            {"question": "A? Please answer yes or no.", "answer": a, "category": "OCR",
             "image_path": "1"}
            for a in ("Yes", "No")
        ],
        [("OCR", "yes"), ("OCR", "no")],
    ),
    "seed": (
        "SEEDBench_IMG.tsv",
        [{"question": "A?", "A": "x", "B": "y", "answer": "B", "category": "Scene"}],
        [("Scene", "B")],
    ),
    "scienceqa": (
        "ScienceQA_TEST.tsv",
        [{"question": "A?", "hint": "nan", "A": "x", "B": "y", "C": "", "answer": "A"}],
        [("all", "A")],
    ),
    "chartqa": (
        "ChartQA_TEST.tsv",
        [
            {"question": "A?", "answer": "['14']", "split": "test_human"},
            {"question": "A?", "answer": "14%", "split": "test_augmented"},
        ],
        [("human", "14"), ("augmented", "14%")],
    ),
    "mathvista": (
        "MathVista_MINI.tsv",
        [
            {"question": "Q", "answer": "y", "question_type": "multi_choice",
             "answer_type": "text", "choices": "['x', 'y']", "task": "t"},
            {"question": "Q", "answer": "1.25", "question_type": "free_form",
             "answer_type": "float", "choices": "", "task": "t"},
        ],
        [("t", "y"), ("t", "1.25")],
    ),
    "mmvet": (
        "MMVet.tsv",
        [{"question": "A?", "answer": "-1<AND>-5", "category": "spat,ocr"}],
        [("ocr_spat", "-1<AND>-5")],
    ),
    "llava_bench": (
        "LLaVABench.tsv",
        [{"question": "A?", "category": "complex", "caption": "C.", "gpt4_ans": "G."}],
        [("complex", "G.")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_vlmevalkits_table_stands_in_for_the_official_layout(kind, tmp_path):
    file, rows, want = TABLES[kind]
    root = as_table(tmp_path, file, rows)
    questions = list(OFFICIAL[kind](kind=kind).questions(root))
    assert [(q.type, q.target) for q in questions] == want
    assert questions[0].load().size == (72, 72)


def test_a_table_without_ocr_tokens_is_refused_where_the_protocol_needs_them(tmp_path):
    root = as_table(tmp_path, "TextVQA_VAL.tsv", [{"question": "A?", "answer": str(["x"] * 10)}])
    with pytest.raises(InputError, match="needs OCR tokens"):
        OFFICIAL["textvqa"](kind="textvqa").check(root)
    (question,) = OFFICIAL["textvqa"](kind="textvqa", protocol="vlmevalkit").questions(root)
    assert question.details["answers"] == ("x",) * 10


def test_a_picture_that_vanished_later_is_a_failure_of_the_stage(samples, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(samples, root)
    question = next(iter(OFFICIAL["pope"](kind="pope").questions(root)))
    shutil.rmtree(root / "coco")
    with pytest.raises(StageError, match="no such file"):
        question.load()
