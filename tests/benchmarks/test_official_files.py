"""Official files: read whole, hashed by content, in either of their layouts."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError, StageError

from .damage import (
    MMB,
    POPE,
    cell,
    row,
)


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


def test_seeds_questions_of_one_id_are_all_asked(samples, tmp_path):
    """The official file has two of the id 49914; each is scored by its own answer."""
    root = shutil.copytree(samples, tmp_path / "root")
    benchmark = OFFICIAL["seed"](kind="seed")
    before = list(benchmark.questions(root))
    for number in (2, 4):
        row(number, "questions", question_id="0")(root / "seed/SEED-Bench.json")
    after = list(benchmark.questions(root))
    assert [q.id for q in after[:5]] == ["0", "0#2", "2", "0#3", "4"]
    assert [(q.prompt, q.target) for q in after] == [(q.prompt, q.target) for q in before]
    for one in after[:4]:
        assert benchmark.predict(one, one.target).score == 1
    assert len({q.id for q in after}) == len(after)


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
            assert changed.suffix in (".tsv", ".csv", ".txt"), "one blank is a row, or a word"
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
    "amber": (
        "AMBER.tsv",
        [
            {"question": "Is it red?", "answer": "No", "category": "discriminative-attribute-state",
             "image_path": "1"},
            {"question": "Is there a dog?", "answer": "no",
             "category": "discriminative-hallucination", "image_path": "2"},
            {"question": "Do they touch?", "answer": "Yes", "category": "relation",
             "image_path": "1"},
        ],
        [("state", "no"), ("existence", "no"), ("relation", "yes")],
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


@pytest.mark.parametrize("kind", ["pope_aokvqa", "pope_gqa"])
def test_popes_variants_are_read_as_a_list_or_an_object_a_line(kind, samples, tmp_path):
    """The official files are lists; VCD's copies, under other names, have a line a question."""
    root = shutil.copytree(samples, tmp_path / "root")
    benchmark = OFFICIAL[kind](kind=kind)
    before = [(q.id, q.prompt, q.target) for q in benchmark.questions(root)]
    name = kind.removeprefix("pope_")
    folder = root / "pope" / name
    folder.mkdir()
    for split in ("random", "popular", "adversarial"):
        file = root / "pope" / f"{name}_pope_seem_{split}.json"
        lines = "".join(json.dumps(row) + "\n" for row in json.loads(file.read_text()))
        (folder / f"{name}_pope_{split}.json").write_text(lines)
        file.unlink()
    assert [(q.id, q.prompt, q.target) for q in benchmark.questions(root)] == before
    assert len(before) == 72


def test_popes_variants_have_their_own_pictures(samples):
    found = {
        kind: next(iter(OFFICIAL[kind](kind=kind).load(samples).items)).picture.path
        for kind in ("pope", "pope_aokvqa", "pope_gqa")
    }
    assert found["pope"] == found["pope_aokvqa"]
    assert found["pope_gqa"].parent == samples / "gqa" / "images"
