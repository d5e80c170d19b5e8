"""Benchmark rows as they are found in the wild: option texts that look like nothing, pictures in
CMYK, ids of any form, lists of pictures, one picture lacking among many."""

from __future__ import annotations

import base64
import io
import json
import shutil

import pytest
from PIL import Image

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.choices import Choices
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow
from seva_exp.benchmarks.tsv import read_table
from seva_exp.core.errors import InputError, StageError

from .damage import GQA, MMB, POPE, cell, line, row
from .test_tables import picture, written


def as_base64(image: Image.Image, format: str) -> str:
    file = io.BytesIO()
    image.save(file, format)
    return base64.b64encode(file.getvalue()).decode()


def changed(samples, tmp_path, kind, file, change):
    shutil.copytree(samples, tmp_path / "root")
    change(tmp_path / "root" / file)
    return OFFICIAL[kind](kind=kind).load(tmp_path / "root").items


NOTHING = ["None", "NA", "null", "N/A", "none", "0", "-", "<NA>", "False"]


@pytest.mark.parametrize("text", NOTHING)
def test_an_option_that_looks_like_nothing_is_text(samples, tmp_path, text):
    items = changed(samples, tmp_path, "mmbench_en", MMB, cell(6, D=text, answer="D"))
    item = items[5]
    assert item.details["options"]["D"] == text and item.target == "D"
    assert f"D. {text}" in item.texts["options"]


@pytest.mark.parametrize("text", NOTHING)
def test_an_answer_that_looks_like_nothing_is_text(samples, tmp_path, text):
    assert changed(samples, tmp_path, "gqa", GQA, cell(2, answer=text))[1].target == text
    assert FileRow(tmp_path, "row 1", {"answer": text}).texts("answer") == (text,)
    options = {"A": text, "B": "x"}
    assert Choices.table_options(None, FileRow(tmp_path, "row 1", options)) == options


@pytest.mark.parametrize("text", ["5", "{'a': 1}", "(1, 2)", "[" * 9999, "'a' 'b'", "\\d", "1e999"])
def test_a_cell_that_is_no_list_is_one_text(tmp_path, text):
    assert FileRow(tmp_path, "row 1", {"answer": text}).texts("answer") == (text,)


def test_a_list_that_is_written_out(tmp_path):
    written_out = {"answer": "['None', 'NA', \"it's\", 5]"}
    assert FileRow(tmp_path, "row 1", written_out).texts("answer") == ("None", "NA", "it's", "5")


@pytest.mark.parametrize("id", ["12-3", "007", "1e3", "NaN", "None", "2024-01-01", "a b/c#1"])
def test_an_id_stays_as_it_is(samples, tmp_path, id):
    items = changed(samples, tmp_path, "gqa", GQA, cell(2, index=id))
    assert items[1].id == id
    shutil.rmtree(tmp_path / "root")
    items = changed(samples, tmp_path, "pope", POPE, line(3, question_id=id))
    assert f"popular-{id}" in {item.id for item in items}


def test_a_row_of_mmbench_whose_index_is_no_number_is_a_question_of_its_own(samples, tmp_path):
    items = changed(samples, tmp_path, "mmbench_en", MMB, cell(2, index="12-0"))
    assert [(one.id, one.group) for one in items][1] == ("12-0", "12-0")


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_a_picture_in_cmyk_is_used(tmp_path, format):
    red = Image.new("CMYK", (16, 12), (0, 255, 255, 0))
    rows = [["index", "image"], ["0", as_base64(red, format)]]
    (found,) = read_table(written(tmp_path / "t.tsv", rows))
    loaded = found.picture.load()
    r, g, b = loaded.getpixel((3, 3))
    assert loaded.mode == "RGB" and r > 220 and g < 40 and b < 40


FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"]


@pytest.mark.parametrize("wrapped", ["{}", "['{}']", '["{}"]', "data:image/png;base64,{}", "\n {}"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_way_a_picture_stands_in_a_table(tmp_path, format, wrapped):
    content = as_base64(Image.effect_noise((40, 30), 90).convert("RGB"), format)
    rows = [["index", "image", "q"], ["0", wrapped.format(content), "x"]]
    (found,) = read_table(written(tmp_path / "t.tsv", rows))
    assert found.picture.load().size == (40, 30)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_two_pictures_are_refused_by_row(tmp_path, quote):
    both = f"[{quote}{picture()}{quote}, {quote}{picture('blue')}{quote}]"
    rows = [["index", "image"], ["0", picture()], ["1", both]]
    with pytest.raises(InputError, match=r"t\.tsv: row 2 \(line 3\): column 'image' holds 2 pict"):
        list(read_table(written(tmp_path / "t.tsv", rows)))


def test_two_pictures_of_official_files_are_refused_by_row_and_name(samples, tmp_path):
    content = (samples / POPE).read_text().splitlines()[2]
    name = json.loads(content)["image"]
    items = changed(samples, tmp_path, "pope", POPE, line(3, image=[name]))
    assert items[2].group == name
    shutil.rmtree(tmp_path / "root")
    with pytest.raises(InputError) as caught:
        changed(samples, tmp_path, "pope", POPE, line(3, image=[name, "other.jpg"]))
    said = "line 3: field 'image': several pictures: 2 of them"
    assert said in str(caught.value) and "other.jpg" in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "missing picture|'image'"),
        ("nan", "'image' holds 'nan', and no row of that index"),
        ("img/7.jpg", "'image' holds 'img/7.jpg'"),
        ("no picture at all, " * 9, "column 'image' holds no picture as base64"),
        (base64.b64encode(b"no picture at all" * 9).decode(), "'image' holds no picture as base64"),
    ],
)
def test_one_row_of_680_without_a_picture_is_named(tmp_path, cell, said):
    rows = [["index", "image"], *([str(i), picture()] for i in range(680))]
    rows[417][1] = cell
    written(tmp_path / "t.tsv", rows)
    with pytest.raises(InputError, match=rf"t\.tsv: row 417 \(line 418\): .*({said})"):
        list(BenchmarkFiles(tmp_path).table(["t.tsv"]))


def test_a_damaged_picture_is_told_by_row_when_it_is_opened(tmp_path):
    broken = as_base64(Image.effect_noise((40, 30), 90), "PNG")[:800]
    rows = [["index", "image"], ["0", picture()], ["1", broken], ["2", picture()]]
    found = list(read_table(written(tmp_path / "t.tsv", rows)))
    with pytest.raises(StageError, match=r"t\.tsv: row 2 \(line 3\): the picture at byte"):
        found[1].picture.load()


def test_base64_where_a_file_is_named_is_cut(samples, tmp_path):
    content = as_base64(Image.effect_noise((200, 200), 90), "PNG")
    with pytest.raises(InputError) as caught:
        changed(samples, tmp_path, "pope", POPE, line(3, image=content))
    assert "line 3: field 'image': not a path" in str(caught.value)
    assert len(str(caught.value)) < 900 < len(content)


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
@pytest.mark.parametrize("field", ["question_id", "text"])
def test_half_a_character_is_refused_by_line(samples, tmp_path, text, field):
    with pytest.raises(InputError, match=r"coco_pope_popular\.json: line 3: .*not text") as caught:
        changed(samples, tmp_path, "pope", POPE, line(3, **{field: f"x{text}"}))
    str(caught.value).encode()


def test_half_a_character_in_a_choice_is_refused_by_entry(samples, tmp_path):
    change = row(2, "questions", choice_a="x\ud800")
    with pytest.raises(InputError, match=r"SEED-Bench\.json: row 2 of 'questions'.*not text"):
        changed(samples, tmp_path, "seed", "seed/SEED-Bench.json", change)
