"""SeVa's questions from LLaVA's SFT file: which are drawn, how they are cut, what is told."""

import hashlib
import json
from collections import Counter

import pytest
from PIL import Image

from seva_exp.core.errors import InputError
from seva_exp.core.spec import canonical
from seva_exp.data import Llava665kData

SUFFIX = "Answer the question using a single word or phrase."
CAPTION = "Provide a one-sentence caption for the provided image.\nReference OCR token: STOP, M&M"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def turns(*texts):
    exchange = [({"from": "human", "value": t}, {"from": "gpt", "value": "x"}) for t in texts]
    return [turn for pair in exchange for turn in pair]


def ocr(i, n=4):
    first = f"<image>\nWho wrote book {i}?\n{SUFFIX}"
    rest = [f"Question {k} of {i}?\n{SUFFIX}" for k in range(2, n + 1)]
    image = f"ocr_vqa/images/{i:03d}.jpg"
    return {"id": str(i), "image": image, "conversations": turns(first, *rest)}


def text(i):
    image = f"textvqa/train_images/{i:03d}.jpg"
    return {"id": f"t{i}", "image": image, "conversations": turns(f"<image>\n{CAPTION} {i}")}


OTHERS = [
    {"id": "c", "image": "coco/train2017/1.jpg", "conversations": turns("<image>\nWhat?")},
    {"id": "g", "image": "gqa/images/1.jpg", "conversations": turns("<image>\nWhat?")},
    {"id": "s", "conversations": turns("Hello")},
]


def source(folder, rows, **fields):
    """The rows as a file, with a picture for each that has a path below ocr_vqa/ or textvqa/."""
    for row in rows:
        image = row.get("image", "") if isinstance(row, dict) else ""
        if isinstance(image, str) and image.startswith(("ocr_vqa/i", "textvqa/t")):
            file = folder / image
            file.parent.mkdir(parents=True, exist_ok=True)
            color = hashlib.sha256(image.encode()).digest()
            Image.new("RGB", (16, 12), tuple(color[:3])).save(file, "JPEG")
    path = folder / "mix.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return Llava665kData(path=str(path), **fields)


def whole(folder, **fields):
    rows = [row for i in range(12) for row in (ocr(i), text(i), *OTHERS)]
    return source(folder, rows, **fields)


def test_draws_pictures_and_questions(tmp_path):
    data = whole(tmp_path, ocr_images=5, ocr_questions=2, text_images=7)
    data.check()
    made = data.build(0, tmp_path, sha256)
    by_image = Counter(s.image.path for s in made.samples)
    sides = Counter(path.split("/")[0] for path in by_image)
    assert sides == {"ocr_vqa": 5, "textvqa": 7}
    assert {n for path, n in by_image.items() if path.startswith("ocr")} == {2}
    for sample in made.samples:
        assert sample.response == "" and sample.image.sha256 == sha256(tmp_path / sample.image.path)
        path, _, number = sample.id.partition("#")
        assert path == sample.image.path
        i = int(path[-7:-4])
        if path.startswith("ocr_vqa/"):
            texts = [f"Who wrote book {i}?", *(f"Question {k} of {i}?" for k in (2, 3, 4))]
            assert sample.prompt == texts[int(number) - 1]
        else:
            assert sample.prompt == f"{CAPTION} {i}"
    assert len({s.id for s in made.samples}) == 17


def test_every_row_is_accounted_for(tmp_path):
    made = whole(tmp_path, ocr_images=5, ocr_questions=2, text_images=7).build(0, tmp_path, sha256)
    assert {drop.reason for drop in made.drops} == {"not drawn"}
    left = {drop.sample_id: drop.detail for drop in made.drops}
    assert left["coco/"] == left["gqa/"] == left["rows without a picture"] == "12 rows"
    assert sum(name.endswith(".jpg") for name in left) == 7 + 5
    assert sum("#" in name for name in left) == 5 * 2


def test_the_seed_draws(tmp_path):
    data = whole(tmp_path, ocr_images=5, text_images=5)

    def ids(seed):
        return [s.id for s in data.build(seed, tmp_path, sha256).samples]

    assert ids(0) == ids(0)
    assert len({tuple(ids(seed)) for seed in range(8)}) == 8
    numbers = Counter(id[-1] for seed in range(20) for id in ids(seed) if id.startswith("ocr"))
    assert set(numbers) == set("1234") and min(numbers.values()) > 30
    assert data.seeded


def test_a_missing_picture_moves_no_other(tmp_path):
    data = whole(tmp_path, ocr_images=5, text_images=5, on_error="skip")
    before = data.build(0, tmp_path, sha256).samples
    lost = before[0].image.path
    (tmp_path / lost).unlink()
    after = data.build(0, tmp_path, sha256)
    kept = [s for s in before if s.image.path != lost]
    assert [s for s in after.samples if s in before] == kept and len(after.samples) == 15
    (drop,) = [drop for drop in after.drops if drop.reason != "not drawn"]
    assert drop.reason == "no such file" and lost in drop.detail
    assert drop.sample_id.startswith("row-")
    with pytest.raises(InputError, match=rf"row \d+ .*no such file.*{lost}.*below '{tmp_path}'"):
        whole_again = data.model_copy(update={"on_error": "stop"})
        whole_again.build(0, tmp_path, sha256)


def test_too_few_are_taken_and_told(tmp_path):
    rows = [ocr(0, 1), ocr(1, 3), text(0)]
    made = source(tmp_path, rows).build(0, tmp_path, sha256)
    assert len(made.samples) == 1 + 2 + 1
    told = {(drop.sample_id, drop.reason, drop.detail) for drop in made.drops}
    assert told >= {
        ("ocr_vqa/", "fewer pictures than asked for", "2 of 4000"),
        ("textvqa/", "fewer pictures than asked for", "1 of 8000"),
        ("ocr_vqa/images/000.jpg", "fewer questions than asked for", "1 of 2"),
    }


def test_one_subset_alone(tmp_path):
    data = whole(tmp_path, ocr_images=0, text_images=3)
    made = data.build(0, tmp_path, sha256)
    assert len(made.samples) == 3
    assert ("ocr_vqa/", "12 rows") in {(d.sample_id, d.detail) for d in made.drops}
    assert all(s.id.startswith("textvqa/") for s in made.samples)


def test_equal_questions_are_drawn_for_each_picture_on_its_own(tmp_path):
    rows = [ocr(i) | {"conversations": turns(*"abcd")} for i in range(12)]
    made = source(tmp_path, rows, ocr_questions=1).build(0, tmp_path, sha256)
    assert len({s.prompt for s in made.samples}) > 2


def test_rows_of_one_picture_are_put_together(tmp_path):
    second = ocr(0) | {"conversations": turns("Is it new?\n<image>", f"Question 2 of 0?\n{SUFFIX}")}
    made = source(tmp_path, [ocr(0), second], ocr_questions=9).build(0, tmp_path, sha256)
    assert [s.prompt for s in made.samples][-1] == "Is it new?"
    assert [s.id[-2:] for s in made.samples] == ["#1", "#2", "#3", "#4", "#5"]
    drops = [(d.sample_id, d.reason) for d in made.drops]
    assert ("row-000002", "duplicate question") in drops


def test_newlines_within_a_question_stay(tmp_path):
    rows = [ocr(0) | {"conversations": turns(f"<image>\nWho wrote\nthis? Say.\n{SUFFIX}")}, text(0)]
    made = source(tmp_path, rows).build(0, tmp_path, sha256)
    assert [s.prompt for s in made.samples] == ["Who wrote\nthis? Say.", f"{CAPTION} 0"]


BAD = [
    (1, "not a JSON object", ""),
    (ocr(0) | {"image": 3}, "wrong type", "image"),
    (ocr(0) | {"image": "ocr_vqa/../../out.jpg"}, "outside the image folder", "image"),
    (ocr(0) | {"image": "ocr_vqa/../coco/x.jpg"}, "outside the subset's folder", "image"),
    (ocr(0) | {"conversations": []}, "empty", "conversations"),
    (ocr(0) | {"conversations": "x"}, "wrong type", "conversations"),
    (ocr(0) | {"conversations": ["x"]}, "wrong type", "conversations[0]"),
    (ocr(0) | {"conversations": [{"value": "x"}]}, "wrong type", "conversations[0].from"),
    (ocr(0) | {"conversations": turns("x")[1:]}, "no question", "conversations"),
    (ocr(0) | {"conversations": turns("<image>\n")}, "empty", "conversations[0].value"),
    (ocr(0) | {"conversations": turns(f"<image>\n{SUFFIX}")}, "empty", "conversations"),
    (ocr(0) | {"conversations": turns("<image><image>x")}, "image placeholder <image>", ""),
    ({"id": "x", "image": "ocr_vqa/images/none.jpg"}, "missing", "conversations"),
    (ocr(9) | {"image": "ocr_vqa/none.jpg"}, "no such file", "image"),
]


@pytest.mark.parametrize(("row", "reason", "field"), BAD)
def test_bad_rows(tmp_path, row, reason, field):
    rows = [ocr(0), text(0), row]
    with pytest.raises(InputError) as caught:
        source(tmp_path, rows).build(0, tmp_path, sha256)
    message = str(caught.value)
    assert message.startswith("data.path: row 3 of ") and f"{reason}: " in message
    assert (f"field '{field}'" in message) or not field
    assert "data.on_error=skip" in message and len(message.splitlines()) == 1
    made = source(tmp_path, rows, on_error="skip").build(0, tmp_path, sha256)
    assert len(made.samples) == 3
    (drop,) = [drop for drop in made.drops if drop.sample_id.startswith("row-")]
    assert (drop.sample_id, drop.reason) == ("row-000003", reason)
    assert drop.detail.startswith(field) and str(tmp_path) not in drop.detail


def test_no_row_of_either_subset(tmp_path):
    with pytest.raises(InputError, match=r"data\.path: there is no usable row.*fewer pictures"):
        source(tmp_path, OTHERS).build(0, tmp_path, sha256)


@pytest.mark.parametrize("content", ["{}", '[{"id": "x"', "[]", "[3]"])
def test_a_file_that_is_not_the_list(tmp_path, content):
    data = source(tmp_path, [])
    (tmp_path / "mix.json").write_text(content)
    with pytest.raises(InputError, match=r"^data\.path: "):
        data.check()


def test_reads_only_the_pictures_that_are_drawn(tmp_path, monkeypatch):
    data = whole(tmp_path, ocr_images=2, text_images=3)
    opened, hashed = [], []
    monkeypatch.setattr("seva_exp.data.rows.open_image", lambda path: opened.append(path))
    used = {
        s.image.path for s in data.build(0, tmp_path, lambda p: hashed.append(p) or "x").samples
    }
    assert sorted(opened) == sorted(hashed) == sorted(tmp_path / path for path in used)
    hashed.clear()
    data.identity(lambda p: hashed.append(p) or "x", seed=0)
    assert set(hashed) == {tmp_path / "mix.json", *(tmp_path / path for path in used)}
    assert len(hashed) == 6


def test_identity_is_content(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    same = whole(here, ocr_images=2, text_images=2)
    key = canonical(same.identity(sha256, seed=0))
    other = whole(there, ocr_images=2, text_images=2, image_folder=str(there))
    assert canonical(other.identity(sha256, seed=0)) == key and str(tmp_path) not in key
    used = [s.image.path for s in same.build(0, here, sha256).samples]
    for path in sorted((here / "ocr_vqa").rglob("*.jpg")):
        before = path.read_bytes()
        path.write_bytes(before + b"x")
        drawn = path.relative_to(here).as_posix() in used
        assert (canonical(same.identity(sha256, seed=0)) != key) == drawn
        path.write_bytes(before)
    for change in ({"ocr_questions": 1}, {"on_error": "skip"}):
        changed = same.model_copy(update=change)
        assert canonical(changed.identity(sha256, seed=0)) != key
