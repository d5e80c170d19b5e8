"""Official files with a fault: refused by file and row before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.core.errors import InputError

from .damage import (
    AOKVQA,
    GQA,
    INSTANCES,
    LLAVA,
    MMB,
    MME,
    MMVET,
    OCR,
    POPE,
    PROMPTS,
    QUERIES,
    REGIONS,
    RELATED,
    SAFE,
    TEXTVQA,
    TRUTHS,
    Change,
    cell,
    cut,
    cut_within_the_last_picture,
    entry,
    gone,
    line,
    raw,
    row,
    text,
    twice,
)

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
    ("mmbench_en", MMB, cell(6, index=""), ["row 6", "index"]),
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
    ("chair", "chair/synonyms.txt", raw(b"\xff\x01"), ["synonyms.txt", "no UTF-8"]),
    ("pope", POPE, text(""), ["coco_pope_popular.json", "is empty"]),
    ("chartqa", "chartqa/test/test_human.json", text("[]"), ["test_human.json", "is empty"]),
    ("mme", f"{MME}/existence/0000.txt", text(""), ["0000.txt", "is empty"]),
    ("mmbench_en", MMB, text("\n\n"), ["is empty"]),
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
    ("amber", "amber/image/AMBER_3.jpg", gone, ["row 3", "missing picture", "AMBER_3.jpg"]),
    ("amber", QUERIES, row(2, "", id=1), ["query_all.json", "row 2", "duplicate id '1'", "row 1"]),
    ("amber", QUERIES, row(2, "", query=None), ["row 2", "'query'", "missing"]),
    ("amber", QUERIES, row(2, "", image=None), ["row 2", "'image'", "missing"]),
    ("amber", QUERIES, row(2, "", image="../x.jpg"), ["row 2", "lies outside"]),
    ("amber", QUERIES, row(2, "", id=777), ["row 2", "annotations.json has no id '777'"]),
    ("amber", QUERIES, cut, ["query_all.json", "cut off"]),
    ("amber", TRUTHS, cut, ["annotations.json", "cut off"]),
    ("amber", TRUTHS, gone, ["annotations.json", "no such file"]),
    ("amber", TRUTHS, row(2, "", id=1), ["annotations.json", "row 2", "duplicate id '1'"]),
    ("amber", TRUTHS, row(2, "", truth=["zebra"]), ["row 2", "'zebra' is not in relation.json"]),
    ("amber", TRUTHS, row(2, "", hallu=None), ["row 2", "'hallu'", "missing"]),
    ("amber", TRUTHS, row(2, "", type="discriminative-size"), ["row 2", "is none of generative"]),
    ("amber", TRUTHS, row(13, "", truth="maybe"), ["row 13", "'maybe' is none of yes, no"]),
    ("amber", TRUTHS, row(13, "", truth=None), ["row 13", "'truth'", "missing"]),
    ("amber", RELATED, cut, ["relation.json", "cut off"]),
    ("amber", RELATED, twice("star"), ["relation.json", "'star'", "duplicate id"]),
    ("amber", RELATED, text("[]"), ["relation.json", "a JSON object"]),
    ("amber", RELATED, text('{"star": 5}'), ["relation.json", "'star'", "a list of words"]),
    ("amber", RELATED, text('{"star": "x"}'), ["relation.json", "'star'", "a list of words"]),
    ("amber", RELATED, text('{"star": [[1]]}'), ["relation.json", "'star'", "a list of texts"]),
    ("amber", SAFE, text(""), ["safe_words.txt", "line 1", "is empty"]),
    ("amber", SAFE, text("hoop\n\nhoop"), ["safe_words.txt", "line 2", "is empty"]),
    ("amber", SAFE, text("hoop\n<html>"), ["line 2", "'<html>' is no word of relation.json"]),
    ("amber", SAFE, gone, ["safe_words.txt", "no such file"]),
    ("amber", SAFE, raw(b"\xff\x01"), ["safe_words.txt", "no UTF-8"]),
    ("object_halbench", PROMPTS, line(2, image_id=0), ["line 2", "duplicate id '0'", "line 1"]),
    ("object_halbench", PROMPTS, line(2, image_id=77), ["line 2", "has no picture '77'"]),
    ("object_halbench", PROMPTS, line(2, image=None), ["line 2", "'image'", "missing"]),
    ("object_halbench", PROMPTS, line(2, image="x" * 99), ["line 2", "no picture as base64"]),
    ("object_halbench", PROMPTS, line(2, question=" "), ["line 2", "'question'", "empty"]),
    ("object_halbench", PROMPTS, cut, ["line 12", "not JSON"]),
    ("object_halbench", PROMPTS, text(""), ["300_with_image.jsonl", "is empty"]),
    ("object_halbench", "object_halbench/synonyms_refine.txt", text("cat\n"),
     ["'circle' is not in object_halbench/synonyms_refine.txt"]),
    ("object_halbench", "object_halbench/synonyms_refine.txt", gone, ["no such file"]),
    ("object_halbench", INSTANCES, cut, ["cut off"]),
    ("pope_aokvqa", AOKVQA, row(3, "", image="COCO_9.jpg"), ["row 3", "missing picture", "_9.jpg"]),
    ("pope_aokvqa", AOKVQA, row(3, "", label="maybe"), ["row 3", "'maybe' is none of yes, no"]),
    ("pope_aokvqa", AOKVQA, row(3, "", question_id=2), ["row 3", "duplicate id 'popular-2'"]),
    ("pope_aokvqa", AOKVQA, cut, ["seem_popular.json", "cut off"]),
    ("pope_aokvqa", AOKVQA, gone, ["no such file"]),
    ("pope_gqa", "gqa/images/2.jpg", gone, ["gqa_pope_seem_random.json", "missing picture"]),
    ("pope_gqa", "pope/gqa_pope_seem_random.json", row(3, "", text=None), ["row 3", "'text'"]),
    ("pope_gqa", "pope/gqa_pope_seem_random.json", text("[]"), ["random.json", "is empty"]),
]  # fmt: skip


@pytest.mark.parametrize("deep", ["", "questions_answers_YN"])
def test_a_category_of_mme_without_questions_is_named(samples, tmp_path, deep):
    """Alone, with nothing else to read, and beside others, where it would be left out unseen."""
    category = "count" if deep else "existence"
    shutil.copytree(samples / MME, tmp_path / "all" / MME)
    shutil.copytree(samples / MME / category, tmp_path / "alone" / MME / category)
    for root in (tmp_path / "all", tmp_path / "alone"):
        folder = root / MME / category / deep
        for file in folder.glob("*.txt"):
            file.unlink()
        with pytest.raises(InputError, match=r"holds no \.txt.*category") as caught:
            OFFICIAL["mme"](kind="mme").check(root)
        assert str(folder) in str(caught.value)


def test_a_release_of_mme_without_a_category_is_told(tmp_path):
    (tmp_path / MME).mkdir(parents=True)
    with pytest.raises(InputError, match=f"no question in {tmp_path / MME}"):
        OFFICIAL["mme"](kind="mme").check(tmp_path)


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
