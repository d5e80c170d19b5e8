"""VLMEvalKit's tables: read as pandas writes them, pictures by place, damage by row."""

from __future__ import annotations

import base64
import csv
import io
import random

import pytest
from PIL import Image

from seva_exp.benchmarks.tsv import read_table
from seva_exp.core.errors import InputError


def picture(colour: str = "red") -> str:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def written(path, rows, newline="\n"):
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, delimiter="\t", lineterminator=newline)
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_field_comes_back(tmp_path, newline):
    """Against the csv module: quotes, tabs and line breaks in fields, empty ones, any script."""
    rng = random.Random(0)
    pieces = ["a", '"', "\t", "\n", "\r\n", " ", "é", "选", "''", ",", ""]
    rows = [["index", "question", "image", "answer"]]
    for i in range(60):
        text = ["".join(rng.choices(pieces, k=rng.randint(0, 6))) for _ in range(2)]
        rows.append([str(i), text[0], picture(), text[1]])
    path = written(tmp_path / "t.tsv", rows, newline)
    with path.open(encoding="utf-8", newline="") as file:
        want = list(csv.reader(file, delimiter="\t"))[1:]
    found = list(read_table(path))
    assert [[r.values["index"], r.values["question"], r.values["answer"]] for r in found] == [
        [row[0], row[1], row[3]] for row in want
    ]
    assert {r.picture.load().getpixel((0, 0)) for r in found} == {(255, 0, 0)}
    assert [r.number for r in found] == list(range(1, 61))


def test_lines_are_counted_over_line_breaks_in_fields(tmp_path):
    path = written(tmp_path / "t.tsv", [["index", "q"], ["0", "a\nb\n"], ["1", "c"]])
    assert [(row.number, row.line) for row in read_table(path)] == [(1, 2), (2, 5)]


def test_equal_pictures_are_one_and_a_short_column_names_another_row(tmp_path):
    rows = [
        ["index", "image"],
        ["0", picture()],
        ["1", picture()],
        ["2", "0"],
        ["3", picture("blue")],
    ]
    found = list(read_table(written(tmp_path / "t.tsv", rows)))
    first, second, third, fourth = (row.picture for row in found)
    assert first.sha256 == second.sha256 != fourth.sha256
    assert third is None
    assert found[2].values["image"] == "0"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("index\tq\n0\ta\n1", "row 2 (line 3) has 1 columns, the header has 2"),
        ("index\tq\n0\ta\tb\n", "row 1 (line 2) has 3 columns"),
        ('index\tq\n0\t"cut', "line 2: a quoted field has no end"),
        ("index\tindex\n0\ta\n", "two columns are called 'index'"),
    ],
)
def test_damage_is_told_by_row(tmp_path, content, said):
    path = tmp_path / "t.tsv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        list(read_table(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_told_by_row(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes(b"index\tq\n0\tgood\n1\t\xff\xfe\n")
    with pytest.raises(InputError, match=r"row 2 \(line 3\): is not UTF-8"):
        list(read_table(path))
