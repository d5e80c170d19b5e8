"""Data sets of the `datasets` library: pictures are written as they are stored."""

import hashlib
import io
import os
import shutil
import subprocess
import sys

import datasets
import pytest
from datasets.arrow_writer import ArrowWriter
from PIL import Image

from seva_exp.core.errors import InputError
from seva_exp.core.spec import canonical
from seva_exp.data import HfData


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def encoded(i, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (i, 0, 0)).save(file, kind)
    return file.getvalue()


def saved(folder, images, feature=None, splits=False, **columns):
    """A data set as ``save_to_disk`` writes it."""
    feature = feature or datasets.Image()
    table = datasets.Dataset.from_dict({"image": images, **columns})
    table = table.cast_column("image", feature)
    if splits:
        table = datasets.DatasetDict({"train": table, "test": table.select([0])})
    table.save_to_disk(str(folder))
    return folder


def as_bytes(n=4):
    return [{"bytes": encoded(i), "path": None} for i in range(n)]


def test_image_column(tmp_path):
    folder = saved(tmp_path / "ds", as_bytes(), question=list("abcd"), answer=list("wxyz"))
    data = HfData(path=str(folder), question_field="question", response_field="answer")
    assert data.lacking() is None
    data.check()
    made = data.build(0, tmp_path / "work", sha256)
    assert [(s.id, s.prompt, s.response) for s in made.samples] == [
        (f"row-{i + 1:06d}", "abcd"[i], "wxyz"[i]) for i in range(4)
    ]
    root = data.image_root(tmp_path / "work")
    assert root == tmp_path / "work" / "images" and made.drops == []
    for i, sample in enumerate(made.samples):
        file = root / sample.image.path
        assert file.read_bytes() == encoded(i) and file.suffix == ".png"
        assert sample.image.sha256 == sha256(file)
    fixed = HfData(path=str(folder), prompt="What?").build(0, tmp_path / "w2", sha256)
    assert {(s.prompt, s.response) for s in fixed.samples} == {("What?", "")}


@pytest.mark.parametrize("kind", ["binary", "string", "image_path"])
def test_bytes_and_paths(tmp_path, kind):
    contents = [encoded(i, "JPEG") for i in range(3)]
    folder = tmp_path / "ds"
    if kind == "binary":
        saved(folder, contents, datasets.Value("binary"))
    else:
        saved(folder, ["0.jpg", "sub/1.jpg", str(folder / "2.jpg")], datasets.Value("string"))
        (folder / "sub").mkdir()
        for name, content in zip(["0.jpg", "sub/1.jpg", "2.jpg"], contents, strict=True):
            (folder / name).write_bytes(content)
    data = HfData(path=str(folder))
    data.check()
    made = data.build(0, tmp_path, sha256)
    files = [tmp_path / "images" / s.image.path for s in made.samples]
    assert [file.read_bytes() for file in files] == contents
    assert all(file.suffix == ".jpg" for file in files)
    before = canonical(data.identity(sha256))
    if kind != "binary":
        (folder / "sub" / "1.jpg").write_bytes(encoded(99, "JPEG"))
        assert canonical(data.identity(sha256)) != before
    assert canonical(data.identity(sha256, seed=3)) == canonical(data.identity(sha256))


def by_path(folder, *paths):
    """A data set whose Image column holds paths only, as older versions of `datasets` saved it."""
    saved(folder, as_bytes(1))
    features = datasets.Features({"image": datasets.Image()})
    writer = ArrowWriter(features=features, path=str(folder / "data-00000-of-00001.arrow"))
    for path in paths:
        writer.write({"image": {"bytes": None, "path": path}})
    writer.finalize()
    return HfData(path=str(folder))


def test_image_column_whose_pictures_lie_elsewhere(tmp_path):
    for file in ("a.png", "ds/b.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(encoded(1))
    data = by_path(tmp_path / "ds", str(tmp_path / "a.png"), "b.png")
    made = data.build(0, tmp_path, sha256)
    assert len(made.samples) == 2 and len({s.image for s in made.samples}) == 1
    assert (tmp_path / "images" / made.samples[0].image.path).read_bytes() == encoded(1)
    before = canonical(data.identity(sha256))
    (tmp_path / "a.png").write_bytes(encoded(2))
    assert canonical(data.identity(sha256)) != before


def test_a_path_without_a_file(tmp_path):
    data = by_path(tmp_path / "ds", "no.png")
    data.identity(sha256)
    with pytest.raises(InputError, match=r"row 1 .*field 'image': no such file: 'no\.png'"):
        data.build(0, tmp_path, sha256)


def test_an_equal_picture_is_written_and_decoded_once(tmp_path, monkeypatch):
    from seva_exp.data import hf_pictures

    opened = []
    look = hf_pictures.open_image
    monkeypatch.setattr(hf_pictures, "open_image", lambda p: opened.append(p) or look(p))
    folder = saved(tmp_path / "ds", as_bytes(1) * 5)
    made = HfData(path=str(folder)).build(0, tmp_path, sha256)
    assert len(made.samples) == 5 and len(opened) == 1
    assert len(list((tmp_path / "images").iterdir())) == 1


BAD = [
    ({"image": None}, "missing", "image"),
    ({"image": {"bytes": b"x", "path": None}}, "not an image", "image"),
    ({"question": None}, "wrong type", "question"),
    ({"question": " "}, "empty", "question"),
    ({"question": "<image> x"}, "image placeholder <image>", "question"),
]


@pytest.mark.parametrize(("change", "reason", "field"), BAD)
def test_bad_rows(tmp_path, change, reason, field):
    rows = [{"image": image, "question": "?"} for image in as_bytes(3)]
    rows[1] |= change
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    saved(tmp_path / "ds", columns.pop("image"), **columns)
    data = HfData(path=str(tmp_path / "ds"), question_field="question")
    with pytest.raises(InputError) as caught:
        data.build(0, tmp_path / "w", sha256)
    message = str(caught.value)
    assert message.startswith("data.path: row 2 of ") and f"field '{field}': {reason}" in message
    assert "data.on_error=skip" in message and len(message.splitlines()) == 1
    made = data.model_copy(update={"on_error": "skip"}).build(0, tmp_path / "w2", sha256)
    assert [s.id for s in made.samples] == ["row-000001", "row-000003"]
    (drop,) = made.drops
    assert (drop.sample_id, drop.reason) == ("row-000002", reason)
    assert len(list((tmp_path / "w2" / "images").iterdir())) == 2


def test_draw(tmp_path):
    data = HfData(path=str(saved(tmp_path / "ds", as_bytes(20))), samples=5)
    made = data.build(0, tmp_path / "a", sha256)
    assert len(made.samples) == 5 and len(made.drops) == 15
    assert {d.reason for d in made.drops} == {"not drawn"} and data.seeded
    assert data.build(0, tmp_path / "b", sha256) == made != data.build(1, tmp_path / "c", sha256)
    assert len(list((tmp_path / "a" / "images").iterdir())) == 5


def test_splits(tmp_path):
    folder = str(saved(tmp_path / "ds", as_bytes(), splits=True))
    with pytest.raises(InputError, match=r"data\.split: must be set.*test, train"):
        HfData(path=folder).check()
    with pytest.raises(InputError, match=r"data\.split=trian.*Did you mean 'train'"):
        HfData(path=folder, split="trian").check()
    for split, n in (("train", 4), ("test", 1)):
        data = HfData(path=folder, split=split)
        data.check()
        assert len(data.build(0, tmp_path / split, sha256).samples) == n
    plain = str(saved(tmp_path / "plain", as_bytes()))
    with pytest.raises(InputError, match=r"data\.split.*no splits"):
        HfData(path=plain, split="train").check()


def test_identity_is_content(tmp_path):
    here, there = saved(tmp_path / "a", as_bytes()), saved(tmp_path / "b", as_bytes())
    data = HfData(path=str(here))
    key = canonical(data.identity(sha256))
    assert canonical(HfData(path=str(there)).identity(sha256)) == key and str(tmp_path) not in key
    other = saved(tmp_path / "c", as_bytes(5))
    assert canonical(HfData(path=str(other)).identity(sha256)) != key
    assert canonical(HfData(path=str(here), prompt="Else?").identity(sha256)) != key
    hub = HfData(path="owner/name", revision="0" * 40)
    assert hub.identity(sha256) == hub.fields()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_field": "imag"}, r"data\.image_field=imag: .*Did you mean 'image'"),
        ({"question_field": "q"}, r"data\.question_field=q: there is no such column"),
        ({"image_field": "n"}, r"data\.image_field=n: the column holds .*int64"),
    ],
)
def test_columns(tmp_path, change, said):
    data = HfData(path=str(saved(tmp_path / "ds", as_bytes(), n=[1, 2, 3, 4])), **change)
    for work in (lambda: data.identity(sha256), lambda: data.build(0, tmp_path, sha256)):
        with pytest.raises(InputError, match=said):
            work()


def test_folder_that_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match=r"data\.path.*no data set as save_to_disk writes it"):
        HfData(path=str(tmp_path)).check()
    folder = saved(tmp_path / "ds", as_bytes())
    with pytest.raises(InputError, match=r"data\.path.*Did you mean '.*/ds'"):
        HfData(path=str(tmp_path / "dss")).check()
    for field in ("config", "revision"):
        with pytest.raises(InputError, match=rf"data\.{field}: .*is a folder"):
            HfData(path=str(folder), **{field: "x"}).check()
    (arrow,) = folder.glob("*.arrow")
    shutil.move(arrow, tmp_path / "kept")
    with pytest.raises(InputError, match=r"data\.path.*lacks its file 'data-00000"):
        HfData(path=str(folder)).check()
    arrow.write_bytes((tmp_path / "kept").read_bytes()[:100])
    with pytest.raises(InputError, match=r"data\.path: .* cannot be loaded: "):
        HfData(path=str(folder)).build(0, tmp_path, sha256)


def test_a_data_set_of_the_hub_needs_a_commit():
    said = HfData(path="owner/name").lacking("instructions")
    assert said.startswith("instructions.revision: must be set (instructions.revision=COMMIT)")
    with pytest.raises(InputError, match=r"^data\.revision: must be set"):
        HfData(path="owner/name").check()
    with pytest.raises(InputError, match=r"data\.revision=main: a commit of 'owner/name'"):
        HfData(path="owner/name", revision="main").check()
    with pytest.raises(InputError, match=r"data\.path: 'my data' is no folder"):
        HfData(path="my data", revision="0" * 40).check()
    HfData(path="owner/name", revision="0" * 40).check()


def test_the_hub_without_a_net_is_one_error(tmp_path):
    code = (
        "import sys; from pathlib import Path; from seva_exp.data import HfData\n"
        "data = HfData(path='owner/name', revision='0' * 40)\n"
        "try: data.build(0, Path(sys.argv[1]), None)\n"
        "except ValueError as error: print(type(error).__name__, error)"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=env
    )
    said = out.stdout.strip()
    assert said.startswith("InputError data.path: 'owner/name' cannot be loaded: "), out.stderr
    assert len(said.splitlines()) == 1 and "data.path=FOLDER" in said
