"""Rows as they are found in the wild: one picture in a list, chat models' messages, text alone,
ids of any form; what is not clear is refused by row, field and reason."""

from __future__ import annotations

import base64
import hashlib
import io
import json

import pytest
from PIL import Image

from seva_exp.core.errors import InputError
from seva_exp.data import HfData, InstructData, JsonlData, Llava665kData

from .test_llava_665k import ocr, source


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


HUMAN, GPT = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}
USER = {"role": "user", "content": "<image>\nWhat is it?"}
ASSISTANT = {"role": "assistant", "content": "A cat."}
PARTS = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
IN_PARTS = [USER | {"content": PARTS}, {"role": "assistant", "content": PARTS[1:]}]
SYSTEM = {"role": "system", "content": "Be brief."}


def made(folder, kind, rows, as_lines=False, **fields):
    Image.new("RGB", (16, 12)).save(folder / "a.png")
    Image.new("RGB", (16, 12), "red").save(folder / "b.png")
    text = "\n".join(map(json.dumps, rows)) if as_lines else json.dumps(rows)
    (folder / "rows.json").write_text(text)
    data = kind(path=str(folder / "rows.json"), **fields)
    data.check()
    return data.build(0, folder, sha256)


CLEAR = {
    "a list of one": {"image": ["a.png"], "conversations": [HUMAN, GPT]},
    "images": {"images": ["a.png"], "messages": [USER, ASSISTANT]},
    "messages": {"image": "a.png", "messages": [USER, ASSISTANT]},
    "messages in parts": {"image": "a.png", "messages": [*IN_PARTS[:1], ASSISTANT]},
    "roles in conversations": {"image": "a.png", "conversations": [USER, ASSISTANT]},
    "no token": {"image": "a.png", "messages": [USER | {"content": "What is it?"}, ASSISTANT]},
    "token at the end": {
        "image": "a.png",
        "conversations": [HUMAN | {"value": "What is it?\n<image>"}, GPT],
    },
}


@pytest.mark.parametrize("as_lines", [False, True])
@pytest.mark.parametrize("name", CLEAR)
def test_a_clear_row_is_used(tmp_path, name, as_lines):
    (sample,) = made(tmp_path, InstructData, [CLEAR[name] | {"id": "12-3"}], as_lines).samples
    assert (sample.id, sample.image.path) == ("12-3", "a.png")
    assert (sample.prompt, sample.response) == ("What is it?", "A cat.")


@pytest.mark.parametrize("as_lines", [False, True])
def test_jsonl_reads_a_list_and_turns(tmp_path, as_lines):
    rows = [
        {"image": ["a.png"], "question": "What is it?", "key": "12-3"},
        {"image": "b.png", "question": [USER, ASSISTANT], "key": "00012"},
        {"image": "a.png", "messages": [USER, ASSISTANT], "key": "1e3"},
        {"image": "a.png", "conversations": [HUMAN, GPT], "key": 7},
        {"image": "a.png", "question": "NA", "key": "None"},
    ]
    found = made(tmp_path, JsonlData, rows, as_lines, id_field="key").samples
    assert [sample.id for sample in found] == ["12-3", "00012", "1e3", "7", "None"]
    assert [sample.prompt for sample in found] == ["What is it?"] * 4 + ["NA"]
    assert [sample.image.path for sample in found] == ["a.png", "b.png", *["a.png"] * 3]


def test_llava_665k_reads_lists_and_roles(tmp_path):
    in_list = ocr(1) | {"image": [ocr(1)["image"]]}
    turns = [{"role": "user", "content": turn["value"]} for turn in ocr(2)["conversations"]]
    in_chat = {"id": "2", "image": ocr(2)["image"], "messages": turns}
    alone = [{"id": str(i), "image": [None, "", []][i], "conversations": []} for i in range(3)]
    rows = [ocr(0), in_list, in_chat, *alone]
    data = source(tmp_path, [ocr(i) for i in range(3)], ocr_questions=9)
    (tmp_path / "mix.json").write_text(json.dumps(rows))
    found = data.build(0, tmp_path, sha256)
    assert {sample.image.path for sample in found.samples} == {ocr(i)["image"] for i in range(3)}
    assert "Who wrote book 1?" in {sample.prompt for sample in found.samples}
    drops = {drop.sample_id: drop.detail for drop in found.drops}
    assert drops["rows without a picture"] == "3 rows"


TEXT_ALONE = [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": "4"}]


@pytest.mark.parametrize("picture", [{}, {"image": None}, {"image": ""}, {"images": []}])
def test_rows_of_text_alone_are_left_out_and_counted(tmp_path, picture):
    """The first row too, at which ``check`` looks."""
    alone = {"id": "t", "conversations": TEXT_ALONE} | picture
    rows = [alone, {"id": "1", "image": "a.png", "conversations": [HUMAN, GPT]}, alone]
    found = made(tmp_path, InstructData, rows)
    assert [sample.id for sample in found.samples] == ["1"]
    assert [(drop.sample_id, drop.reason) for drop in found.drops] == [
        ("row-000001", "no picture"),
        ("row-000003", "no picture"),
    ]


def test_text_alone_is_no_data(tmp_path):
    rows = [{"id": str(i), "conversations": TEXT_ALONE} for i in range(3)]
    with pytest.raises(InputError, match=r"no usable row.*3 rows: 3 no picture"):
        made(tmp_path, InstructData, rows)


def with_turns(*turns, **more):
    return {"id": "x", "image": "a.png", "messages": list(turns)} | more


UNCLEAR = [
    (with_turns(USER, ASSISTANT, image=["a.png", "b.png"]), "several pictures", "image", "b.png"),
    (with_turns(USER, ASSISTANT, image=[]), "no picture", "image", "empty"),
    (with_turns(USER, ASSISTANT, image=[["a.png"]]), "wrong type", "image", ""),
    (with_turns(USER | {"content": "<image><image>x"}, ASSISTANT), "image placeholder <image>",
     "messages[0].content", "remove it"),
    (with_turns(USER | {"content": [PARTS[0], *PARTS]}, ASSISTANT), "several pictures",
     "messages[0].content", "2 parts"),
    (with_turns(USER | {"content": [{"type": "video"}]}, ASSISTANT), "wrong type",
     "messages[0].content[0].type", "video"),
    (with_turns(ASSISTANT, USER), "wrong speaker", "messages[0].role", "'user' is needed"),
    (with_turns(USER, USER), "wrong speaker", "messages[1].role", "'assistant' is needed"),
    (with_turns(SYSTEM, USER, ASSISTANT), "wrong speaker", "messages[0].role", "model.system_p"),
    (with_turns(USER), "no such turn", "messages[1]", "assistant is needed"),
    ({"id": "x", "conversations": [HUMAN, GPT]}, "missing", "image", ""),
    ({"id": "x", "imgae": "a.png", "conversations": TEXT_ALONE}, "missing", "image", "'imgae'"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason", "field", "said"), UNCLEAR)
def test_an_unclear_row_is_refused_by_row_field_and_reason(tmp_path, row, reason, field, said):
    if row.get("image") == []:
        row = row | {"messages": [USER, ASSISTANT]}  # the token speaks of a picture
    rows = [{"id": "1", "image": "a.png", "conversations": [HUMAN, GPT]}, row]
    with pytest.raises(InputError) as caught:
        made(tmp_path, InstructData, rows)
    message = str(caught.value)
    assert message.startswith("data.path: row 2 of ")
    assert f"field '{field}': {reason}: " in message and said in message


def base64_png(side: int = 200) -> str:
    file = io.BytesIO()
    Image.effect_noise((side, side), 90).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("kind", [JsonlData, InstructData, Llava665kData])
def test_a_picture_in_place_of_a_path_is_cut(tmp_path, kind, prefix):
    content = prefix + base64_png()
    row = {"id": "1", "image": content, "question": "What?", "conversations": [HUMAN, GPT]}
    if kind is Llava665kData:
        row["image"] = f"ocr_vqa/{content}"
    with pytest.raises(InputError) as caught:
        made(tmp_path, kind, [row])
    message = str(caught.value)
    assert len(content) > 20_000 and len(message) < 900 and "row 1 of" in message
    if kind is not Llava665kData:
        assert "field 'image': not a path: " in message and "write the pictures to f" in message


def test_every_message_of_a_row_is_cut(tmp_path):
    rows = [{"image": "a.png", "question": {"x" * 9999: 1}, "y" * 9999: 1}]
    with pytest.raises(InputError) as caught:
        made(tmp_path, JsonlData, rows)
    assert len(str(caught.value)) < 900


def saved(folder, features, rows):
    from datasets import Dataset

    Dataset.from_list(rows, features=features).save_to_disk(str(folder / "set"))
    return HfData(path=str(folder / "set"), **FIELDS)


FIELDS = {"question_field": "messages", "response_field": "messages"}


def test_a_data_set_with_lists_of_pictures_and_messages(tmp_path):
    from datasets import Features, List, Value
    from datasets import Image as Picture

    turn = {"role": Value("string"), "content": Value("string")}
    features = Features({"image": List(Picture()), "messages": List(turn)})
    red = Image.new("RGB", (16, 12), "red")
    row = {"image": [red], "messages": [USER, ASSISTANT]}
    data = saved(tmp_path, features, [row, row | {"image": [red, red]}, row | {"image": []}])
    with pytest.raises(InputError, match=r"row 2 of .*field 'image': several pictures: 2 of them"):
        data.build(0, tmp_path, sha256)
    found = data.model_copy(update={"on_error": "skip"}).build(0, tmp_path, sha256)
    (sample,) = found.samples
    assert (sample.prompt, sample.response) == ("What is it?", "A cat.")
    assert [drop.reason for drop in found.drops] == ["several pictures", "no picture"]
    assert data.identity(sha256)["files"] == 1


@pytest.mark.parametrize("in_list", [False, True])
def test_a_data_set_whose_pictures_are_bytes_and_paths_by_name(tmp_path, in_list):
    from datasets import Features, List, Value

    struct = {"bytes": Value("binary"), "path": Value("string")}
    turn = {"role": Value("string"), "content": Value("string")}
    shape = List(struct) if in_list else struct
    features = Features({"image": shape, "messages": List(turn)})
    (tmp_path / "set").mkdir()
    file = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(file, "PNG")
    pictures = [{"bytes": file.getvalue(), "path": None}, {"bytes": None, "path": "a.png"}]
    rows = [{"image": [one] if in_list else one, "messages": [USER, ASSISTANT]} for one in pictures]
    data = saved(tmp_path, features, rows)
    Image.new("RGB", (16, 12), "blue").save(tmp_path / "set" / "a.png")
    assert len(data.build(0, tmp_path, sha256).samples) == 2
    before = data.identity(sha256)
    Image.new("RGB", (16, 12), "green").save(tmp_path / "set" / "a.png")
    assert data.identity(sha256) != before
