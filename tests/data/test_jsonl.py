"""Rows of a JSONL file: each is a sample or is named with its number, field and reason."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from seva_exp.core.errors import InputError
from seva_exp.core.records import write_jsonl
from seva_exp.core.spec import canonical
from seva_exp.data import JsonlData

RED, BLUE = (255, 0, 0), (0, 0, 255)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(path, color=RED, size=(16, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def rows(folder, *lines, **fields):
    """A source of the given lines (objects or raw text) beside two pictures."""
    save(folder / "a.png")
    save(folder / "sub" / "b.png", BLUE)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "rows.jsonl").write_text(text + "\n", encoding="utf-8")
    return JsonlData(path=str(folder / "rows.jsonl"), **fields)


GOOD = {"image": "a.png", "question": "What is it?"}


def test_jsonl(tmp_path):
    data = rows(tmp_path, GOOD, "", {"image": "./sub/../sub/b.png", "question": "Où ça?", "x": 1})
    data.check()
    found = data.build(0, tmp_path, sha256)
    assert [(s.id, s.image.path, s.prompt) for s in found.samples] == [
        ("row-000001", "a.png", "What is it?"),
        ("row-000003", "sub/b.png", "Où ça?"),
    ]
    assert found.drops == [] and data.image_root(Path("/x")) == tmp_path
    assert found.samples[1].image.sha256 == sha256(tmp_path / "sub" / "b.png")


def test_jsonl_fields_and_folder_can_be_chosen(tmp_path):
    row = {"file": "b.png", "text": "Why?", "key": 17}
    names = {"image_field": "file", "question_field": "text", "id_field": "key"}
    data = rows(tmp_path, row, image_folder=str(tmp_path / "sub"), **names)
    data.check()
    (sample,) = data.build(0, tmp_path, sha256).samples
    assert (sample.id, sample.image.path, sample.prompt) == ("17", "b.png", "Why?")
    assert data.image_root(tmp_path) == tmp_path / "sub"


def test_jsonl_takes_an_absolute_path_inside(tmp_path):
    data = rows(tmp_path, GOOD | {"image": str(tmp_path / "sub" / "b.png")})
    assert data.build(0, tmp_path, sha256).samples[0].image.path == "sub/b.png"


def test_jsonl_with_a_byte_order_mark(tmp_path):
    data = rows(tmp_path, "\ufeff" + json.dumps(GOOD))
    assert len(data.build(0, tmp_path, sha256).samples) == 1


BAD_ROWS = [
    ("{'image': 1}", "not JSON", ""),
    ("[1, 2]", "not a JSON object", ""),
    ({"image": "a.png"}, "missing", "question"),
    ({"question": "?"}, "missing", "image"),
    (GOOD | {"question": " "}, "empty", "question"),
    (GOOD | {"image": ""}, "empty", "image"),
    (GOOD | {"question": 3}, "wrong type", "question"),
    (GOOD | {"image": None}, "wrong type", "image"),
    (GOOD | {"image": "no.png"}, "no such file", "image"),
    (GOOD | {"image": "rows.jsonl"}, "not an image", "image"),
    (GOOD | {"image": "sub"}, "not an image", "image"),
    (GOOD | {"image": "../out.png"}, "outside the image folder", "image"),
    (GOOD | {"image": "sub/../../out.png"}, "outside the image folder", "image"),
    (GOOD | {"image": "/etc/hostname"}, "outside the image folder", "image"),
    (GOOD | {"image": "a\0.png"}, "not text", "image"),
    (GOOD | {"question": "\ud800"}, "not text", "question"),
    ({"\ud800": 1}, "missing", "image"),
    (["\ud800"], "not a JSON object", ""),
    (GOOD | {"question": "<image>\nWhat?"}, "image placeholder <image>", "question"),
    (GOOD | {"question": "Is <|image_pad|> red?"}, "image placeholder <|image_pad|>", "question"),
]


@pytest.mark.parametrize(("row", "reason", "field"), BAD_ROWS)
def test_bad_row_stops_with_its_number(tmp_path, row, reason, field):
    save(tmp_path.parent / "out.png")
    with pytest.raises(InputError) as caught:
        rows(tmp_path, GOOD, GOOD, row).build(0, tmp_path, sha256)
    message = str(caught.value)
    assert message.startswith("data.path: row 3 of ") and "data.on_error=skip" in message
    assert f"{reason}: " in message and (f"field '{field}'" in message or not field)
    assert "remove it" in message or "placeholder" not in reason
    message.encode()


@pytest.mark.parametrize(("row", "reason", "field"), BAD_ROWS)
def test_bad_row_can_be_skipped(tmp_path, row, reason, field):
    save(tmp_path.parent / "out.png")
    found = rows(tmp_path, GOOD, row, GOOD, on_error="skip").build(0, tmp_path, sha256)
    assert [s.id for s in found.samples] == ["row-000001", "row-000003"]
    (drop,) = found.drops
    assert (drop.sample_id, drop.reason) == ("row-000002", reason)
    assert drop.detail.startswith(field) and str(tmp_path) not in drop.detail
    write_jsonl(tmp_path / "drops.jsonl", [drop])


def test_row_that_is_not_utf8(tmp_path):
    data = rows(tmp_path, GOOD, on_error="skip")
    with open(data.path, "ab") as file:
        file.write(b'{"image": "a.png", "question": "\xff"}\n')
    assert [d.reason for d in data.build(0, tmp_path, sha256).drops] == ["not JSON"]


def test_duplicate_id(tmp_path):
    lines = [GOOD | {"id": "x"}, GOOD | {"id": "y"}, GOOD | {"id": "x"}]
    with pytest.raises(InputError, match=r"row 3 .*field 'id'.*duplicate id.*row-000001"):
        rows(tmp_path, *lines, id_field="id").build(0, tmp_path, sha256)
    found = rows(tmp_path, *lines, id_field="id", on_error="skip").build(0, tmp_path, sha256)
    assert [s.id for s in found.samples] == ["x", "y"]
    assert [d.reason for d in found.drops] == ["duplicate id"]


@pytest.mark.parametrize("id", [True, 1.5, None, "", []])
def test_id_of_the_wrong_type(tmp_path, id):
    with pytest.raises(InputError, match=r"row 1 .*field 'id'"):
        rows(tmp_path, GOOD | {"id": id}, id_field="id").build(0, tmp_path, sha256)


def test_jsonl_without_a_usable_row(tmp_path):
    data = rows(tmp_path, "x", GOOD | {"image": "no.png"}, on_error="skip")
    with pytest.raises(
        InputError, match=r"data\.path.*2 rows: 1 not JSON: .*, 1 no such file: image: "
    ):
        data.build(0, tmp_path, sha256)


def test_jsonl_check_is_quick_and_helps(tmp_path):
    with pytest.raises(InputError, match=r"'question'.*Did you mean 'questions'"):
        rows(tmp_path, {"image": "a.png", "questions": "?"}).check()
    rows(tmp_path, {"image": "a.png", "questions": "?"}, on_error="skip").check()
    with pytest.raises(InputError, match="no row"):
        rows(tmp_path, "", " ").check()
    with pytest.raises(InputError, match=r"data\.path.*Did you mean '.*rows\.jsonl'"):
        JsonlData(path=str(tmp_path / "row.jsonl")).check()
    with pytest.raises(InputError, match=r"data\.image_folder.*Did you mean '.*/sub'"):
        rows(tmp_path, GOOD, image_folder=str(tmp_path / "subs")).check()


def test_jsonl_draw(tmp_path):
    lines = [GOOD | {"question": f"{i}?"} for i in range(30)]

    def ids(seed, n):
        found = rows(tmp_path, *lines, samples=n).build(seed, tmp_path, sha256)
        assert len(found.samples) + len(found.drops) == 30
        assert [s.id for s in found.samples] == sorted(s.id for s in found.samples)
        return {s.id for s in found.samples}

    assert ids(0, 9) == ids(0, 9) != ids(1, 9)
    assert len(ids(0, 9)) == 9 and ids(0, 9) < ids(0, 12) and len(ids(0, 99)) == 30


def test_jsonl_opens_each_picture_once(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("seva_exp.data.rows.open_image", lambda path: opened.append(path.name))
    rows(tmp_path, *[GOOD] * 5).build(0, tmp_path, sha256)
    assert opened == ["a.png"]


def test_jsonl_identity_is_content(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    same = rows(here, GOOD, "bad row").identity(sha256)
    assert rows(there, GOOD, "bad row").identity(sha256) == same
    assert str(tmp_path) not in canonical(same)
    others = [
        rows(here, GOOD, "bad row", on_error="skip").identity(sha256),
        rows(here, GOOD, "bad row", samples=1).identity(sha256),
        rows(here, GOOD).identity(sha256),
    ]
    data = rows(here, GOOD, "bad row")
    save(here / "a.png", BLUE)
    others.append(data.identity(sha256))
    (here / "a.png").unlink()
    others.append(data.identity(sha256))
    assert len({canonical(value) for value in [same, *others]}) == 6


@pytest.mark.parametrize(
    "bad", ["{no json", {"image": "a.png"}, {"image": "none.png", "question": "What?"}]
)
def test_a_bad_row_is_found_before_a_run_has_a_folder(tmp_path, bad):
    """The key is found before anything is made: the identity has looked at every row."""
    with pytest.raises(InputError, match="row 2 of"):
        rows(tmp_path, GOOD, bad).identity(sha256, seed=0)
    skipping = rows(tmp_path, GOOD, bad, on_error="skip")
    assert skipping.identity(sha256, seed=0)["rows"] == sha256(tmp_path / "rows.jsonl")


def test_a_missing_picture_of_a_row_that_is_not_drawn_stops_nothing(tmp_path):
    lines = [GOOD, *({"image": f"{i}.png", "question": "What?"} for i in range(9))]
    found = set()
    for seed in range(20):
        try:
            rows(tmp_path, *lines, samples=1).identity(sha256, seed=seed)
            found.add("drawn one is there")
        except InputError:
            found.add("drawn one is missing")
    assert len(found) == 2
