"""The vision suite's files with a fault: refused by file and row before a model is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.core.errors import InputError

from .damage import Change, cell, cut, cut_within_the_last_picture, gone, line, raw, row, text
from .test_official_faults import check_all

HALLUSION, FIGURE = "hallusionbench/HallusionBench.json", "hallusionbench/hallusion_bench/VD"
NATURAL = "naturalbench/NaturalBenchDataset.tsv"
MMSTAR, MMVP = "mmstar/MMStar.tsv", "mmvp/Questions.csv"
CV_2D, CV_3D = "cv_bench/test_2d.jsonl", "cv_bench/test_3d.jsonl"
MMHAL, PROMPT = "mmhal/response_template.json", "mmhal/judge_prompt.txt"


def swap(old: str, new: str) -> Change:
    """One text of a file for another."""

    def apply(file: Path) -> None:
        content = file.read_text(encoding="utf-8")
        assert old in content
        file.write_text(content.replace(old, new, 1), encoding="utf-8")

    return apply


def last_row_gone(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:-1]), encoding="utf-8")


def rows_gone(*numbers: int) -> Change:
    """Without some rows of a table with a header."""

    def apply(file: Path) -> None:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for number, line in enumerate(lines) if number not in numbers]
        file.write_text("".join(kept), encoding="utf-8")

    return apply


WRONG: list[tuple[str, str, Change, list[str]]] = [
    ("hallusionbench", f"{FIGURE}/figure/0_0.png", gone, ["row 1", "missing picture", "0_0.png"]),
    ("hallusionbench", HALLUSION, row(2, "", filename=None), ["row 2", "'filename'", "missing"]),
    ("hallusionbench", HALLUSION, row(2, "", filename="../x.png"), ["row 2", "lies outside"]),
    ("hallusionbench", HALLUSION, row(2, "", gt_answer="2"), ["row 2", "'2' is none of 0, 1"]),
    ("hallusionbench", HALLUSION, row(2, "", category="VX"), ["row 2", "'VX' is none of VD, VS"]),
    ("hallusionbench", HALLUSION, row(2, "", visual_input="3"), ["row 2", "'3' is none of 0, 1"]),
    ("hallusionbench", HALLUSION, row(2, "", visual_input="0"), ["row 2", "figure_id is 0"]),
    ("hallusionbench", HALLUSION, row(33, "", visual_input="1", filename="VD/figure/0_0.png"),
     ["row 33", "figure_id is 0"]),
    ("hallusionbench", HALLUSION, row(2, "", question_id="0"),
     ["row 2", "duplicate id 'VD_figure_1_0_0_0'", "row 1"]),
    ("hallusionbench", HALLUSION, row(2, "", question=" "), ["row 2", "'question'", "empty"]),
    ("hallusionbench", HALLUSION, row(2, "", set_id=None), ["row 2", "'set_id'", "missing"]),
    ("hallusionbench", HALLUSION, row(2, "", set_id=2.5), ["row 2", "set_id", "number", "'2.5'"]),
    ("hallusionbench", HALLUSION, row(2, "", figure_id="x"), ["row 2", "figure_id", "'x'"]),
    ("hallusionbench", HALLUSION, cut, ["row 48", "cut off"]),
    ("hallusionbench", HALLUSION, text("[]"), ["HallusionBench.json", "is empty"]),
    ("hallusionbench", HALLUSION, text(""), ["HallusionBench.json", "is empty"]),
    ("naturalbench", NATURAL, cell(3, image=""), ["row 3", "'image'", "empty"]),
    ("naturalbench", NATURAL, cell(3, image="77"), ["row 3", "missing picture", "'77'"]),
    ("naturalbench", NATURAL, cell(3, answer="Maybe"), ["row 3", "'Maybe' is none of Yes, No"]),
    ("naturalbench", NATURAL, cell(3, answer="Yes"), ["row 3", "Yes, No, No, Yes", "'Yes'"]),
    ("naturalbench", NATURAL, cell(41, answer="Yes"), ["row 41", "'Yes' is none of A, B"]),
    ("naturalbench", NATURAL, cell(3, type="open"), ["row 3", "'open' is none of yes_no"]),
    ("naturalbench", NATURAL, cell(3, type="multiple_choice"), ["row 3", "that of its group"]),
    ("naturalbench", NATURAL, cell(4, question="Else?"), ["row 4", "not that of row 3"]),
    ("naturalbench", NATURAL, cell(4, index="2"), ["row 4", "duplicate id '2'", "row 3"]),
    ("naturalbench", NATURAL, cell(4, index="x"), ["row 4", "a whole number", "'x'"]),
    ("naturalbench", NATURAL, cell(4, index=""), ["row 4", "'index'", "empty"]),
    ("naturalbench", NATURAL, last_row_gone, ["row 43", "has 3 rows, NaturalBench has 4"]),
    ("naturalbench", NATURAL, cell(1, type=None), ["row 1", "column 'type' is missing"]),
    ("naturalbench", NATURAL, cut_within_the_last_picture, ["row 44", "cut off"]),
    ("mmstar", MMSTAR, cell(3, image=""), ["row 3", "'image'"]),
    ("mmstar", MMSTAR, cell(3, answer="E"), ["row 3", "'E' is none of the choices A, B, C, D"]),
    ("mmstar", MMSTAR, cell(3, index="0"), ["row 3", "duplicate id '0'", "row 1"]),
    ("mmstar", MMSTAR, cell(3, category=""), ["row 3", "'category'", "empty"]),
    ("mmstar", MMSTAR, cell(3, A=""), ["row 3", "fewer than two choices", "Options: A:"]),
    ("mmstar", MMSTAR, cell(3, B="", C="", D=""), ["row 3", "fewer than two choices"]),
    ("mmstar", MMSTAR, cell(1, answer=None), ["row 1", "column 'answer' is missing"]),
    ("mmstar", MMSTAR, cut_within_the_last_picture, ["row 36", "cut off"]),
    ("mmvp", "mmvp/MMVP Images/3.jpg", gone, ["row 3 (line 4)", "missing picture", "3.jpg"]),
    ("mmvp", MMVP, swap(",(a)\n", ",(c)\n"), ["row 1 (line 2)", "'C' is none of the choices A, B"]),
    ("mmvp", MMVP, swap("(b) No", "(b) "), ["row 1 (line 2)", "'(a) ... (b) ...' is needed"]),
    ("mmvp", MMVP, swap("\n2,", "\n1,"), ["row 2 (line 3)", "duplicate id '1'", "row 1"]),
    ("mmvp", MMVP, swap("\n2,", "\n,"), ["row 2 (line 3)", "'Index'", "empty"]),
    ("mmvp", MMVP, swap("Correct Answer", "Answer"), ["header", "'Correct Answer' is missing"]),
    ("mmvp", MMVP, last_row_gone, ["row 23", "no partner"]),
    ("mmvp", MMVP, rows_gone(2, 5), ["row 1 (line 2)", "question 1 has no partner"]),
    ("mmvp", MMVP, rows_gone(1, 24), ["row 1 (line 2)", "question 2 has no partner"]),
    ("mmvp", MMVP, swap("\n2,", "\ntwo,"), ["row 2 (line 3)", "a number", "'two'"]),
    ("mmvp", MMVP, cut, ["line 25", "no CSV"]),
    ("mmvp", MMVP, swap("(b) No", "(b) No,x"), ["row 1 (line 2)", "has 5 columns"]),
    ("mmvp", MMVP, text(""), ["no question in", "Questions.csv"]),
    ("mmvp", MMVP, raw(b"\xff\x01"), ["Questions.csv", "no UTF-8"]),
    ("cv_bench", "cv_bench/img/2D/coco/0003.png", gone, ["2d.jsonl", "missing picture"]),
    ("cv_bench", CV_2D, line(2, answer="(G)"), ["line 2", "'G' is none of the choices"]),
    ("cv_bench", CV_2D, line(2, choices=["x"]), ["line 2", "'choices'", "two at least"]),
    ("cv_bench", CV_2D, line(2, choices=None), ["line 2", "'choices'", "missing"]),
    ("cv_bench", CV_2D, line(2, source="Omni3D"), ["line 2", "'Omni3D' is none of ADE20K, COCO"]),
    ("cv_bench", CV_3D, line(2, idx=0), ["3d.jsonl", "line 2", "duplicate id '0'", "2d.jsonl"]),
    ("cv_bench", CV_3D, line(2, task=""), ["3d.jsonl", "line 2", "'task'", "empty"]),
    ("cv_bench", CV_3D, gone, ["test_3d.jsonl", "no such file"]),
    ("cv_bench", CV_3D, cut, ["test_3d.jsonl", "line 12", "not JSON"]),
    ("mmhal", "mmhal/images/0000000000000002_o.jpg", gone, ["row 3", "missing picture"]),
    ("mmhal", MMHAL, row(3, "", question_type="math"), ["row 3", "'math' is none of attribute"]),
    ("mmhal", MMHAL, row(3, "", gt_answer=None), ["row 3", "'gt_answer'", "missing"]),
    ("mmhal", MMHAL, row(3, "", image_content=5), ["row 3", "a list of texts"]),
    ("mmhal", MMHAL, row(3, "", image_id="0" * 16), ["row 3", "duplicate id", "row 1"]),
    ("mmhal", MMHAL, row(3, "", image_id="x" * 5000, image_src="x"), ["row 3", "missing picture"]),
    ("mmhal", MMHAL, row(3, "", image_content=[]), ["row 3", "'image_content'", "is empty"]),
    ("mmhal", MMHAL, cut, ["row 12", "cut off"]),
    ("mmhal", PROMPT, gone, ["judge_prompt.txt", "no such file", "own_prompts"]),
    ("mmhal", PROMPT, swap("{}", "x"), ["judge_prompt.txt", "four times", "3 times"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "file", "change", "said"), WRONG, ids=[f"{w[0]}-{'-'.join(w[3])}" for w in WRONG]
)
def test_a_fault_is_refused_with_file_and_row(samples, tmp_path, kind, file, change, said):
    root = tmp_path / "root"
    shutil.copytree(samples / file.partition("/")[0], root / file.partition("/")[0])
    benchmark = OFFICIAL[kind](kind=kind)
    check_all(benchmark, root)
    change(root / file)
    with pytest.raises(InputError) as caught:
        check_all(benchmark, root)
    assert str(root) in str(caught.value)
    for word in said:
        assert word in str(caught.value)


def test_pairs_of_mmvp_do_not_depend_on_the_order_of_rows(samples, tmp_path):
    shutil.copytree(samples / "mmvp", tmp_path / "mmvp")
    file, benchmark = tmp_path / MMVP, OFFICIAL["mmvp"](kind="mmvp")
    before = {one.id: one.group for one in benchmark.questions(tmp_path)}
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([header, *reversed(lines)]) + "\n", encoding="utf-8")
    assert {one.id: one.group for one in benchmark.questions(tmp_path)} == before
    assert before["1"] == before["2"] != before["3"]


def test_a_pair_of_mmvps_table_has_one_question(tmp_path):
    """VLMEvalKit's report_acc_MMVP asserts it; without it a lost row shifts all pairs behind it."""
    from seva_exp.benchmarks.samples.cases import cases, write_table

    picture = cases(1)[0].base64
    rows = [
        {"index": n, "question": f"Q{n // 2}?", "A": "x", "B": "y", "answer": "A", "image": picture}
        for n in range(6)
    ]
    write_table(tmp_path / "MMVP.tsv", rows)
    benchmark = OFFICIAL["mmvp"](kind="mmvp")
    benchmark.check(tmp_path)
    write_table(tmp_path / "MMVP.tsv", [rows[0], *rows[2:5]])
    with pytest.raises(InputError, match=r"row 2 \(line 3\): the question is not that of its pair"):
        benchmark.check(tmp_path)


def test_half_of_cv_bench_is_not_left_out_unseen(tmp_path):
    from seva_exp.benchmarks.samples.cases import cases, write_table

    row = {"index": 0, "question": "Q?", "A": "x", "B": "y", "answer": "A", "source": "COCO"}
    row |= {"category": "Count", "prompt": "P", "image": cases(1)[0].base64}
    write_table(tmp_path / "CV-Bench-2D.tsv", [row])
    write_table(tmp_path / "CV-Bench-3D.tsv", [row | {"source": "Omni3D"}])
    OFFICIAL["cv_bench"](kind="cv_bench").check(tmp_path)
    rows_gone(1)(tmp_path / "CV-Bench-2D.tsv")
    with pytest.raises(InputError, match=r"2D\.tsv: there is no question in it"):
        OFFICIAL["cv_bench"](kind="cv_bench").check(tmp_path)


def test_a_prompt_that_cv_bench_lacks_is_refused_where_it_is_asked(samples, tmp_path):
    shutil.copytree(samples / "cv_bench", tmp_path / "cv_bench")
    line(2, prompt=None)(tmp_path / CV_2D)
    OFFICIAL["cv_bench"](kind="cv_bench").check(tmp_path)
    with pytest.raises(InputError, match=r"line 2: field 'prompt': missing"):
        OFFICIAL["cv_bench"](kind="cv_bench", protocol="vlmevalkit").check(tmp_path)


@pytest.mark.parametrize("index", ["VS_map_0_0_0", "3", "VS_map_0_0_0_0_0"])
def test_an_index_of_hallusionbenchs_table_has_six_parts(tmp_path, index):
    from seva_exp.benchmarks.samples.cases import cases, write_table

    row = {"index": index, "question": "Q?", "answer": "Yes", "image": cases(1)[0].base64}
    write_table(tmp_path / "HallusionBench.tsv", [row])
    with pytest.raises(InputError, match="column 'index': category, subcategory") as caught:
        OFFICIAL["hallusionbench"](kind="hallusionbench").check(tmp_path)
    assert "row 1 (line 2)" in str(caught.value)


def test_a_table_whose_figure_is_lost_is_refused(tmp_path):
    from seva_exp.benchmarks.samples.cases import write_table

    row = {"index": "VS_map_1_0_1_0", "question": "Q?", "answer": "Yes", "image": ""}
    write_table(tmp_path / "HallusionBench.tsv", [row])
    with pytest.raises(InputError, match=r"row 1 \(line 2\): missing picture"):
        OFFICIAL["hallusionbench"](kind="hallusionbench").check(tmp_path)
