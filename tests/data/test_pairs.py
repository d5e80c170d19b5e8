"""Preference sets of other trainers: each format's rows by hand, what is refused, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from seva_exp.core.errors import InputError
from seva_exp.core.spec import Json
from seva_exp.data import PairsData
from seva_exp.data.preferences import Preference, format_of, preference_of
from seva_exp.inputs.fields import BadRow

QUESTION, YES, NO = "What is it?", "A red cube.", "A blue cone."
SAID = Preference(QUESTION, YES, (NO,))
LLAMAFACTORY = {
    "conversations": [{"from": "human", "value": f"<image>{QUESTION}"}],
    "chosen": {"from": "gpt", "value": YES},
    "rejected": {"from": "gpt", "value": NO},
    "images": ["a.png"],
}
MS_SWIFT = {
    "messages": [
        {"role": "user", "content": f"<image>{QUESTION}"},
        {"role": "assistant", "content": YES},
    ],
    "rejected_response": NO,
    "images": ["a.png"],
}
TRL = {
    "images": ["a.png"],
    "prompt": [{"role": "user", "content": QUESTION}],
    "chosen": [{"role": "assistant", "content": YES}],
    "rejected": [{"role": "assistant", "content": NO}],
}
ROWS: list[tuple[str, Json]] = [
    ("llamafactory", LLAMAFACTORY),
    (
        "llamafactory",
        {
            "messages": [{"role": "user", "content": f"<image>\n{QUESTION}"}],
            "chosen": {"role": "assistant", "content": YES},
            "rejected": {"role": "assistant", "content": NO},
            "images": ["a.png"],
        },
    ),
    (
        "llamafactory",
        {
            "instruction": f"<image>{QUESTION}",
            "input": "",
            "chosen": YES,
            "rejected": NO,
            "images": ["a.png"],
        },
    ),
    ("ms_swift", MS_SWIFT),
    ("ms_swift", MS_SWIFT | {"rejected_images": ["a.png"], "images": ["a.png"]}),
    (
        "ms_swift",
        {
            "messages": MS_SWIFT["messages"],
            "rejected_messages": [
                {"role": "user", "content": f"<image>{QUESTION}"},
                {"role": "assistant", "content": NO},
            ],
            "images": [{"path": "a.png"}],
        },
    ),
    ("trl", TRL),
    (
        "trl",
        TRL
        | {
            "prompt": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
            ]
        },
    ),
    ("trl", {"image": "a.png", "prompt": QUESTION, "chosen": YES, "rejected": NO}),
    ("rlaif_v", {"image": "a.png", "question": QUESTION, "chosen": YES, "rejected": NO}),
    (
        "seva_exp",
        {
            "sample_id": "a",
            "image": {"path": "a.png", "sha256": "0"},
            "prompt": QUESTION,
            "chosen": YES,
            "rejected": [NO],
            "views": ["moco"],
        },
    ),
]


@pytest.mark.parametrize(("format", "row"), ROWS)
def test_a_row_of_each_format_says_the_same(format, row):
    assert format_of(row) == format
    assert preference_of(row, "auto") == preference_of(row, format) == SAID


BAD: list[tuple[Json, str]] = [
    ({"image": "a.png", "question": QUESTION}, "chosen and rejected are needed"),
    ({}, "its keys are none"),
    (LLAMAFACTORY | {"chosen": {"from": "gpt", "value": " "}}, "field 'chosen"),
    (LLAMAFACTORY | {"rejected": {"from": "human", "value": NO}}, "wrong speaker"),
    (LLAMAFACTORY | {"system": "Be brief."}, r"model\.system_prompt"),
    (
        LLAMAFACTORY | {"conversations": [*LLAMAFACTORY["conversations"], {"from": "gpt"}, {}]},
        "several turns",
    ),
    (MS_SWIFT | {"rejected_images": ["b.png"]}, "another picture"),
    (MS_SWIFT | {"rejected_response": []}, "a list without a text"),
    (MS_SWIFT | {"messages": MS_SWIFT["messages"] * 2}, "question and answer are 2"),
    (TRL | {"chosen": "An <image>."}, "image placeholder"),
    ({"chosen": TRL["chosen"], "rejected": TRL["rejected"], "images": ["a.png"]}, "'prompt'"),
    (ROWS[-1][1] | {"context": "It"}, "goes on behind the beginning"),
]


@pytest.mark.parametrize(("row", "why"), BAD)
def test_a_bad_row_is_refused_with_its_field(row, why):
    with pytest.raises(BadRow, match=why):
        preference_of(row, "auto")


@pytest.fixture
def folder(tmp_path) -> Path:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    return tmp_path


def write(file: Path, *rows: Json) -> PairsData:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PairsData(path=str(file))


def samples(data: PairsData, folder: Path):
    return data.build(0, folder / "out", lambda file: file.name).samples


def test_the_samples_of_a_file_have_both_answers(folder):
    data = write(folder / "pairs.jsonl", LLAMAFACTORY, MS_SWIFT, TRL)
    data.check()
    found = samples(data, folder)
    assert [one.id for one in found] == ["row-000001", "row-000002", "row-000003"]
    assert {(one.prompt, one.response, one.rejected) for one in found} == {(QUESTION, YES, (NO,))}
    assert data.image_root(folder) == folder and found[0].image.path == "a.png"


def test_a_list_of_llamafactory_with_names_of_its_own(folder):
    row = {
        "dialogue": [{"who": "person", "said": f"<image>{QUESTION}"}],
        "good": {"who": "model", "said": YES},
        "bad": {"who": "model", "said": NO},
        "photos": ["a.png"],
    }
    (folder / "mine.json").write_text(json.dumps([row]))
    columns = {"messages": "dialogue", "chosen": "good", "rejected": "bad", "images": "photos"}
    tags = {"role_tag": "who", "content_tag": "said", "user_tag": "person"}
    entry = {
        "file_name": "mine.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": columns,
        "tags": tags | {"assistant_tag": "model"},
    }
    sft = {"file_name": "other.json"}
    (folder / "dataset_info.json").write_text(json.dumps({"mine": entry, "sft": sft}))
    keys = []
    for path in (folder, folder / "mine.json"):
        data = PairsData(path=str(path), format="llamafactory")
        data.check()
        [one] = samples(data, folder)
        assert (one.prompt, one.response, one.rejected) == (QUESTION, YES, (NO,))
        keys.append(data.identity(lambda file: file.name))
    assert keys[0] == keys[1], "no path is in a key"
    info = {"a": entry, "b": entry | {"file_name": "b.json"}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"2 data sets with ranking: true \(a, b\)"):
        PairsData(path=str(folder)).check()


def test_a_broken_row_names_file_and_row(folder):
    bad = MS_SWIFT | {"rejected_response": ""}
    data = write(folder / "pairs.jsonl", MS_SWIFT, bad)
    with pytest.raises(InputError, match=r"row 2 of '.*pairs\.jsonl': field 'rejected_response'"):
        samples(data, folder)
    kept = data.model_copy(update={"on_error": "skip", "max_broken": 1.0})
    assert len(samples(kept, folder)) == 1
    data = write(folder / "pairs.jsonl", MS_SWIFT | {"images": ["b.png"]})
    with pytest.raises(InputError, match=r"row 1 .*no such file.*Pictures are looked for below"):
        samples(data, folder)


def test_parquet_files_hold_their_pictures(folder):
    import datasets

    content = (folder / "a.png").read_bytes()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            **dict.fromkeys(("question", "chosen", "rejected"), datasets.Value("string")),
        }
    )
    row = {"image": {"bytes": content, "path": None}, "question": QUESTION, "chosen": YES}
    table = datasets.Dataset.from_list([row | {"rejected": NO}] * 2, features)
    table.to_parquet(str(folder / "part.parquet"))
    for path in (folder / "part.parquet", folder):
        data = PairsData(path=str(path))
        data.check()
        found = samples(data, folder)
        assert [(one.prompt, one.response, one.rejected) for one in found] == [
            (QUESTION, YES, (NO,))
        ] * 2
        assert data.estimate() == 2
    table.rename_column("image", "photo").to_parquet(str(folder / "part.parquet"))
    with pytest.raises(InputError, match="no column 'images' or 'image'"):
        PairsData(path=str(folder)).check()


def test_what_is_not_there_is_told(folder):
    with pytest.raises(InputError, match=r"data\.path: there is no file '.*pair\.jsonl'"):
        PairsData(path=str(folder / "pair.jsonl")).check()
    with pytest.raises(InputError, match=r"data\.path: there is no folder .*parquet"):
        PairsData(path=str(folder / "x.parquet")).check()
    with pytest.raises(ValueError, match="format"):
        PairsData(path="a", format="alpaca")
    assert "must be set" in str(PairsData().lacking())
