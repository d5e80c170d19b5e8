"""A JSON list is read in pieces, whatever is cut by a piece's end; what is no list is refused."""

import json

import pytest

from seva_exp.core.errors import InputError
from seva_exp.inputs import json_rows
from seva_exp.inputs.json_rows import elements, is_list, lines

VALUES = [
    {"id": "a", "text": 'quote " and \\ and ü and 𝄞', "n": [1, 2.5e3, {}]},
    123456,
    -0.5,
    "a, ] [",
    [],
    None,
    True,
    {"nested": [{"x": "]"}]},
]


def read(tmp_path, content):
    file = tmp_path / "rows.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(elements(file, "data.path"))


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_pieces_of_any_length(tmp_path, monkeypatch, piece, indent):
    monkeypatch.setattr(json_rows, "PIECE", piece)
    for ascii in (True, False):
        text = json.dumps(VALUES, indent=indent, ensure_ascii=ascii)
        assert read(tmp_path, f" \n{text}\n ") == list(enumerate(VALUES, 1))


def test_empty_list_and_byte_order_mark(tmp_path):
    assert read(tmp_path, " [ ] ") == []
    assert read(tmp_path, b"\xef\xbb\xbf[1]") == [(1, 1)]
    assert is_list(tmp_path / "rows.json", "data.path")


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_a_file_that_is_cut_off_is_refused_wherever_it_is_cut(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(json_rows, "PIECE", piece)
    text = json.dumps(VALUES[:3], ensure_ascii=True)
    for end in range(1, len(text)):
        with pytest.raises(InputError, match=r"^data\.path: .*cut off or no valid JSON at row \d"):
            read(tmp_path, text[:end])
    with pytest.raises(InputError, match="at row 3"):
        read(tmp_path, '[{"a": 1}, {"b": 2}, {"c": "long')


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_told_as_one(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(InputError, match=r"data\.path: .* is empty"):
        list(elements(tmp_path / "rows.json", "data.path"))


@pytest.mark.parametrize("text", ["{}", '{"a": 1}\n{"a": 2}', "x", '"text"'])
def test_what_is_no_list(tmp_path, text):
    with pytest.raises(InputError, match=r"data\.path: .* is not a JSON list"):
        read(tmp_path, text)
    assert not is_list(tmp_path / "rows.json", "data.path")


@pytest.mark.parametrize("text", ["[1 2]", "[1,]", "[,1]", "[1]]", "[1] x", "[1}", "[{'a': 1}]"])
def test_what_is_not_json(tmp_path, text):
    with pytest.raises(InputError, match="cut off or no valid JSON"):
        read(tmp_path, text)


def test_depth_and_length_are_bounded(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="row 1"):
        read(tmp_path, "[" + "[" * 200_000)
    monkeypatch.setattr(json_rows, "MAX_ROW", 1000)
    monkeypatch.setattr(json_rows, "PIECE", 100)
    with pytest.raises(InputError, match="row 2: no end within 1000 characters"):
        read(tmp_path, '[1, "' + "x" * 5000 + '"]')


def test_bytes_that_are_no_text_are_one_rows_fault(tmp_path):
    found = read(tmp_path, b'["good", "\xff", "good"]')
    assert [value for _, value in found] == ["good", "\udcff", "good"]


def test_only_a_piece_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "PIECE", 50)
    pieces = []
    more = json_rows._Pieces._more
    monkeypatch.setattr(
        json_rows._Pieces, "_more", lambda self: (more(self), pieces.append(len(self.text)))[0]
    )
    assert len(read(tmp_path, json.dumps(list(range(10_000))))) == 10_000
    assert max(pieces) < 200


def test_lines(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\n\n \nb")
    assert list(lines(tmp_path / "x", "data.path")) == [(1, b"a\n"), (4, b"b")]
