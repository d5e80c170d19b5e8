"""Instruction data in LLaVA's format: the first exchange; every other row is told."""

import hashlib
import json

import pytest
from PIL import Image

from seva_exp.core.errors import InputError
from seva_exp.core.records import Sample, read_jsonl, write_jsonl
from seva_exp.core.spec import canonical
from seva_exp.data import InstructData


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


HUMAN = {"from": "human", "value": "<image>\nWhat is\nit?"}
GPT = {"from": "gpt", "value": " A cat.\n"}
GOOD = {"id": "0", "image": "coco/a.jpg", "conversations": [HUMAN, GPT, HUMAN, GPT]}


def source(folder, rows, as_lines=False, **fields):
    (folder / "coco").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12)).save(folder / "coco" / "a.jpg")
    Image.new("RGB", (16, 12), (9, 9, 9)).save(folder.parent / "out.jpg")
    text = "\n".join(map(json.dumps, rows)) if as_lines else json.dumps(rows, indent=1)
    (folder / "sft.json").write_text(text)
    return InstructData(path=str(folder / "sft.json"), **fields)


@pytest.mark.parametrize("as_lines", [False, True])
def test_the_first_exchange(tmp_path, as_lines):
    second = GOOD | {"id": 7, "conversations": [HUMAN | {"value": "Why?<image>"}, GPT]}
    data = source(tmp_path, [GOOD, second], as_lines)
    data.check()
    made = data.build(0, tmp_path, sha256)
    assert [(s.id, s.prompt, s.response) for s in made.samples] == [
        ("0", "What is\nit?", "A cat."),
        ("7", "Why?", "A cat."),
    ]
    assert made.drops == [] and made.samples[0].image.path == "coco/a.jpg"
    write_jsonl(tmp_path / "samples.jsonl", made.samples)
    assert list(read_jsonl(tmp_path / "samples.jsonl", Sample)) == made.samples


def without(key):
    return {k: v for k, v in GOOD.items() if k != key} | ({"id": "1"} if key != "id" else {})


def said(*turns):
    return GOOD | {"id": "1", "conversations": list(turns)}


BAD = [
    ([], "not a JSON object", ""),
    (without("image"), "missing", "image"),
    (without("conversations"), "missing", "conversations"),
    (without("id"), "missing", "id"),
    (GOOD | {"id": "1", "image": None}, "wrong type", "image"),
    (GOOD | {"id": "1", "image": "coco/b.jpg"}, "no such file", "image"),
    (GOOD | {"id": "1", "image": "../out.jpg"}, "outside the image folder", "image"),
    (GOOD | {"id": "1", "image": "sft.json"}, "not an image", "image"),
    (GOOD, "duplicate id", "id"),
    (GOOD | {"id": ["x"]}, "wrong type", "id"),
    (said(), "empty", "conversations"),
    (said(HUMAN), "no such turn", "conversations[1]"),
    (said(GPT, HUMAN), "wrong speaker", "conversations[0].from"),
    (said(HUMAN, HUMAN), "wrong speaker", "conversations[1].from"),
    (said(HUMAN, 3), "wrong type", "conversations[1]"),
    (said(HUMAN, {"from": "gpt"}), "missing", "conversations[1].value"),
    (said(HUMAN, GPT | {"value": " \n"}), "empty", "conversations[1].value"),
    (said(HUMAN | {"value": " <image>\n "}, GPT), "empty", "conversations[0].value"),
    (said(HUMAN | {"value": "<image><image>x"}, GPT), "image placeholder <image>", ""),
    (said(HUMAN, GPT | {"value": "see <image>"}), "image placeholder <image>", ""),
    (said(HUMAN | {"value": "\ud800"}, GPT), "not text", "conversations[0].value"),
]


@pytest.mark.parametrize(("row", "reason", "field"), BAD)
@pytest.mark.parametrize("as_lines", [False, True])
def test_bad_rows(tmp_path, row, reason, field, as_lines):
    rows = [GOOD, row, GOOD | {"id": "2"}]
    with pytest.raises(InputError) as caught:
        source(tmp_path, rows, as_lines).build(0, tmp_path, sha256)
    message = str(caught.value)
    assert message.startswith("data.path: row 2 of ") and f"{reason}: " in message
    assert (f"field '{field}'" in message) or not field
    assert "data.on_error=skip" in message and len(message.splitlines()) == 1
    assert "id_field=null" in message or reason != "duplicate id"
    assert ("looked for below" in message) == (field == "image")
    made = source(tmp_path, rows, as_lines, on_error="skip").build(0, tmp_path, sha256)
    assert [s.id for s in made.samples] == ["0", "2"]
    (drop,) = made.drops
    assert (drop.sample_id, drop.reason) == ("row-000002", reason)
    assert drop.detail.startswith(field)
    write_jsonl(tmp_path / "drops.jsonl", [drop])


def test_rows_by_number_may_share_an_id(tmp_path):
    made = source(tmp_path, [GOOD, GOOD], id_field=None).build(0, tmp_path, sha256)
    assert [s.id for s in made.samples] == ["row-000001", "row-000002"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "there is no row"),
        ("", "there is no row"),
        ('[{"id": "0", "image": "co', "cut off or no valid JSON at row 1"),
        ('{"id": \n"0"}', "row 1 .*not JSON"),
        ("[3]", "row 1 .*not a JSON object"),
    ],
)
def test_check_reads_the_first_row(tmp_path, content, said):
    data = source(tmp_path, [])
    (tmp_path / "sft.json").write_text(content)
    with pytest.raises(InputError, match=rf"^data\.path: .*{said}"):
        data.check()


def test_a_file_cut_off_is_never_skipped(tmp_path):
    data = source(tmp_path, [GOOD, GOOD], on_error="skip", id_field=None)
    file = tmp_path / "sft.json"
    file.write_text(file.read_text()[:-20])
    for work in (lambda: data.build(0, tmp_path, sha256), lambda: data.identity(sha256)):
        with pytest.raises(InputError, match=r"cut off .* at row 2"):
            work()


def test_byte_order_mark(tmp_path):
    for as_lines in (False, True):
        data = source(tmp_path, [GOOD], as_lines)
        file = tmp_path / "sft.json"
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        data.check()
        assert len(data.build(0, tmp_path, sha256).samples) == 1


def test_draw(tmp_path):
    rows = [GOOD | {"id": str(i)} for i in range(30)]
    data = source(tmp_path, rows, samples=9)

    def ids(seed):
        made = data.build(seed, tmp_path, sha256)
        assert len(made.drops) == 21
        return {s.id for s in made.samples}

    assert ids(0) == ids(0) != ids(1) and len(ids(0)) == 9


def test_identity_is_content(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    data = source(tmp_path / "x" / "here", [GOOD])
    same = canonical(data.identity(sha256))
    other = source(tmp_path / "y" / "there", [GOOD], image_folder=str(tmp_path / "y" / "there"))
    assert canonical(other.identity(sha256)) == same and str(tmp_path) not in same
    (tmp_path / "x" / "here" / "coco" / "a.jpg").write_bytes(b"x")
    assert canonical(data.identity(sha256)) != same
