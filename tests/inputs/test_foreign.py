"""A file that is no UTF-8 text is told by what it is, in every reader; what lies behind a question
mark in an editor stays text."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from io import BytesIO

import pytest
from PIL import Image

from seva_exp.benchmarks.files import BenchmarkFiles
from seva_exp.benchmarks.tsv import read_table
from seva_exp.core.errors import InputError
from seva_exp.data import CocoData, InstructData, JsonlData, Llava665kData
from seva_exp.inputs.foreign import foreign
from seva_exp.inputs.prompts import load_prompts

TEXT = '{"image": "a.png", "question": "What is it?"}\n'


def zipped(content: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rows.jsonl", content)
    return file.getvalue()


FOREIGN = {
    "gzip: unpack it (gunzip FILE)": gzip.compress,
    "a zip archive": zipped,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "UTF-16: write it as UTF-8 (iconv -f UTF-16 ": lambda b: b.decode().encode("utf-16"),
    "UTF-16LE": lambda b: b.decode().encode("utf-16-le"),
    "UTF-16BE": lambda b: b.decode().encode("utf-16-be"),
    "UTF-32": lambda b: b.decode().encode("utf-32"),
    "Parquet": lambda b: b"PAR1" + b,
}
READERS = {
    "jsonl": lambda file: JsonlData(path=str(file)).check(),
    "instruct": lambda file: InstructData(path=str(file)).check(),
    "llava_665k": lambda file: Llava665kData(path=str(file)).check(),
    "names": lambda file: CocoData(path=str(file.parent), names=str(file)).check(),
    "prompts": lambda file: load_prompts(str(file)),
    "benchmark lines": lambda file: list(BenchmarkFiles(file.parent).lines([file.name])),
    "benchmark list": lambda file: list(BenchmarkFiles(file.parent).list([file.name])),
    "benchmark object": lambda file: list(BenchmarkFiles(file.parent).by_key([file.name])),
    "benchmark text": lambda file: BenchmarkFiles(file.parent).text([file.name]),
    "benchmark tabs": lambda file: list(BenchmarkFiles(file.parent).tabbed(file, ("q", "a"))),
    "benchmark table": lambda file: list(BenchmarkFiles(file.parent).table([file.name])),
    "table": lambda file: list(read_table(file)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", FOREIGN)
def test_it_is_told_what_the_file_is(tmp_path, reader, kind):
    file = tmp_path / "rows.yaml"
    file.write_bytes(FOREIGN[kind](TEXT.encode()))
    with pytest.raises(InputError) as caught:
        READERS[reader](file)
    message = str(caught.value)
    assert f"is {kind}" in message and str(file) in message
    assert "end the row" not in message and len(message.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "x", TEXT, "\ufeff" + TEXT, "é", "选择", "\0", "a\0b"])
def test_a_text_is_none_of_them(tmp_path, text):
    (tmp_path / "x").write_text(text, encoding="utf-8")
    assert foreign(tmp_path / "x", "x") == ""


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(InputError, match=r"^data\.path: '.*' cannot be read: Is a directory\."):
        foreign(tmp_path, "data.path")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\r"])
def test_a_line_ends_at_a_line_feed_only(tmp_path, mark):
    question = f"What is{mark}it?"
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    row = json.dumps({"image": "a.png", "question": question}, ensure_ascii=False)
    (tmp_path / "x.jsonl").write_text(f"{row}\r\n{row}\n", encoding="utf-8", newline="")
    made = JsonlData(path=str(tmp_path / "x.jsonl")).build(0, tmp_path, lambda path: "x")
    assert [sample.prompt for sample in made.samples] == [question] * 2
    (tmp_path / "x.txt").write_text(f"{question}\tYes\r\nB?\tNo\n", encoding="utf-8", newline="")
    rows = list(BenchmarkFiles(tmp_path).tabbed(tmp_path / "x.txt", ("q", "a")))
    assert [row.values for row in rows] == [{"q": question, "a": "Yes"}, {"q": "B?", "a": "No"}]


def test_a_question_in_gbk_is_refused_by_file_and_line(tmp_path):
    file = tmp_path / "0000.txt"
    file.write_bytes("Is it?\tYes\nIs it 这 or 那?\tNo\n".encode("gbk"))
    with pytest.raises(InputError, match=r"0000\.txt: line 2: is not UTF-8"):
        list(BenchmarkFiles(tmp_path).tabbed(file, ("q", "a")))


def test_a_line_without_an_end_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("seva_exp.inputs.json_rows.MAX_ROW", 1000)
    (tmp_path / "x.jsonl").write_text(TEXT + "x" * 5000)
    with pytest.raises(InputError, match=r"x\.jsonl': line 2 has no end within 1000 bytes"):
        JsonlData(path=str(tmp_path / "x.jsonl")).build(0, tmp_path, lambda path: "x")
