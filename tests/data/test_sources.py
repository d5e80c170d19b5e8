"""Folders of pictures, and what all sources keep: identities, bounds, files of defaults."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from seva_exp.core.errors import InputError
from seva_exp.core.field_docs import field_docs
from seva_exp.core.paths import MARKER
from seva_exp.core.spec import canonical
from seva_exp.data import (
    DATA,
    AnyData,
    FolderData,
    JsonlData,
    ShapesData,
)
from seva_exp.inputs.fields import placeholder_in

CONF = Path(__file__).parents[2] / "conf" / "data"
RED, BLUE = (255, 0, 0), (0, 0, 255)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(path, color=RED, size=(16, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def huge_png():
    def chunk(content, size):
        return struct.pack(">I", size) + content + struct.pack(">I", zlib.crc32(content))

    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(header, 13) + chunk(b"IDAT", 0)


def zoo(folder):
    """One of each odd file; those whose name starts with "ok" are usable."""
    folder.mkdir(exist_ok=True)
    save(folder / "ok_plain.png")
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(folder / "ok_cmyk.jpg")
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([0, 0, 0, 0, 255, 0])
    palette.save(folder / "ok_palette.png", transparency=0)
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(folder / "ok_16bit.png")
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    frames[0].save(folder / "ok_animated.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 16)).save(folder / "ok_rotated.jpg", exif=exif)
    bad(folder)


def bad(folder):
    folder.mkdir(exist_ok=True)
    (folder / "notes.txt").write_text("hello")
    save(folder / "cut.jpg", size=(64, 64))
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-200])
    (folder / "zero.png").touch()
    save(folder / "dot.png", size=(1, 1))
    (folder / "huge.png").write_bytes(huge_png())


BAD = {
    "notes.txt": "not an image",
    "cut.jpg": "truncated or damaged",
    "zero.png": "empty file",
    "dot.png": "too small",
    "huge.png": "too large",
}


def pictures(folder, n=20):
    for i in range(n):
        save(folder / f"{i:02d}.png", (i, 0, 0))
    return folder


# --- folder


def test_folder_uses_what_it_can_and_names_the_rest(tmp_path):
    zoo(tmp_path)
    data = FolderData(path=str(tmp_path), prompt="What?")
    data.check()
    found = data.build(0, tmp_path / "unused", sha256)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [s.id for s in found.samples] == [name for name in names if name.startswith("ok")]
    assert [d.sample_id for d in found.drops] == [n for n in names if not n.startswith("ok")]
    assert {d.sample_id: d.reason for d in found.drops} == BAD
    for sample in found.samples:
        assert sample.prompt == "What?" and sample.image.path == sample.id
        assert sample.image.sha256 == sha256(data.image_root(tmp_path / "unused") / sample.id)


def test_folder_without_a_usable_picture(tmp_path):
    bad(tmp_path)
    with pytest.raises(InputError, match=r"data\.path.*5 files.*1 empty file") as caught:
        FolderData(path=str(tmp_path)).build(0, tmp_path, sha256)
    assert all(f"1 {reason}" in str(caught.value) for reason in BAD.values())


def test_folder_order_depth_and_hidden_files(tmp_path):
    for name in ("b.png", "a/z.png", "a/b/c.png", ".hidden.png", ".cache/x.png", "B.png"):
        save(tmp_path / name)
    deep = FolderData(path=str(tmp_path)).build(0, tmp_path, sha256)
    assert [s.id for s in deep.samples] == ["B.png", "a/b/c.png", "a/z.png", "b.png"]
    flat = FolderData(path=str(tmp_path), recursive=False).build(0, tmp_path, sha256)
    assert [s.id for s in flat.samples] == ["B.png", "b.png"]
    assert deep.drops == flat.drops == []


def test_folder_follows_links_but_not_in_circles(tmp_path):
    save(tmp_path / "elsewhere" / "x.png")
    save(tmp_path / "root" / "sub" / "y.png")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "sub" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "self").symlink_to("self")
    (tmp_path / "root" / "broken.png").symlink_to("nothing.png")
    found = FolderData(path=str(tmp_path / "root")).build(0, tmp_path, sha256)
    assert [s.id for s in found.samples] == ["link/x.png", "sub/y.png"]
    reasons = {d.sample_id: d.reason for d in found.drops}
    assert reasons == {"broken.png": "no such file", "self": "no such file"}


def test_folder_names_a_file_name_that_is_no_text(tmp_path):
    save(tmp_path / "a.png")
    try:
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    save(tmp_path / "b.png")
    for samples in (None, 1, 2):
        data = FolderData(path=str(tmp_path), samples=samples)
        found = data.build(0, tmp_path, sha256)
        (drop,) = found.drops
        assert drop.reason == "file name is not UTF-8"
        assert [s.id for s in found.samples] == ["b.png"]
        canonical([drop.sample_id, data.identity(sha256)]).encode()


def test_folder_leaves_out_the_outputs_of_runs(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "sub" / "b.png")
    alone = FolderData(path=str(tmp_path))
    same = alone.identity(sha256)
    for place in ("runs", "sub/store"):
        save(tmp_path / place / "deep" / "out.png")
        (tmp_path / place / MARKER).touch()
    (tmp_path / "latest").symlink_to("runs")
    assert [s.id for s in alone.build(0, tmp_path, sha256).samples] == ["a.png", "sub/b.png"]
    assert alone.identity(sha256) == same
    # A folder inside is data when it is asked for; the folder of outputs itself never is.
    inside = FolderData(path=str(tmp_path / "runs" / "deep"))
    assert [s.id for s in inside.build(0, tmp_path, sha256).samples] == ["out.png"]
    with pytest.raises(InputError, match=rf"data\.path.*outputs of runs.*{re.escape(MARKER)}"):
        FolderData(path=str(tmp_path / "runs")).check()


def test_folder_visits_each_folder_once(tmp_path):
    names = [f"d{i}" for i in range(9)]
    for name in names:
        save(tmp_path / "root" / name / "x.png")
        for other in names:
            (tmp_path / "root" / name / f"to_{other}").symlink_to(tmp_path / "root" / other)
    save(tmp_path / "out" / "y.png")
    for link in ("z2", "z1"):
        (tmp_path / "root" / link).symlink_to(tmp_path / "out")
    (tmp_path / "root" / "a").symlink_to("d3")
    start = time.monotonic()
    found = FolderData(path=str(tmp_path / "root")).build(0, tmp_path, sha256)
    assert time.monotonic() - start < 60
    assert [s.id for s in found.samples] == [*(f"{name}/x.png" for name in names), "z1/y.png"]


PLACEHOLDERS = [
    *("<image>", "<|image|>", "<|image_1|>", "<|image_pad|>", "<image_soft_token>", "<image1>"),
    *("<start_of_image>", "<|vision_start|>", "<fake_token_around_image>", "<global-img>", "<img>"),
    *("[IMG]", "[IMG_END]", "</img>", "<Image>", "<IMG_CONTEXT>", "<|IMAGE_PLACEHOLDER|>"),
]


@pytest.mark.parametrize("token", PLACEHOLDERS)
def test_image_placeholder(tmp_path, token):
    assert placeholder_in(f"{token}What is it?") == placeholder_in(f"Is\n{token}?") == token
    with pytest.raises(InputError, match=r"data\.prompt.*placeholder.*remove it") as caught:
        FolderData(path=str(pictures(tmp_path, 1)), prompt=f"{token}\nWhat?").check()
    assert token in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "the image",
        "an <b>image</b>",
        "<division>",
        "1 < image > 0",
        "<imagery>",
        "<|im_end|>",
        "[x]",
    ],
)
def test_text_that_is_no_image_placeholder(text):
    assert placeholder_in(text) is None


def test_folder_draw(tmp_path):
    pictures(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")

    def ids(seed, n):
        found = FolderData(path=str(tmp_path), samples=n).build(seed, tmp_path, sha256)
        names = {s.id for s in found.samples} | {d.sample_id for d in found.drops}
        assert len(names) == len(found.samples) + len(found.drops) == 21
        assert {d.reason for d in found.drops} <= {"not drawn", "not an image"}
        assert [s.id for s in found.samples] == sorted(s.id for s in found.samples)
        return [s.id for s in found.samples]

    first = ids(0, 7)
    assert first == ids(0, 7) and len(first) == 7
    assert ids(1, 7) != first and set(first) < set(ids(0, 8))
    assert len(ids(0, 20)) == len(ids(0, 500)) == 20
    assert set().union(*(ids(seed, 7) for seed in range(20))) == {f"{i:02d}.png" for i in range(20)}


def test_folder_draw_does_not_decode_what_is_not_drawn(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("seva_exp.data.files.open_image", lambda path: opened.append(path.name))
    found = FolderData(path=str(pictures(tmp_path)), samples=3).build(0, tmp_path, sha256)
    assert sorted(opened) == [s.id for s in found.samples]


def test_folder_draws_again_for_an_unusable_picture(tmp_path):
    data = FolderData(path=str(pictures(tmp_path)), samples=5)
    first = data.build(0, tmp_path, sha256).samples[0].id
    (tmp_path / first).write_bytes(b"broken")
    found = data.build(0, tmp_path, sha256)
    assert len(found.samples) == 5 and first not in {s.id for s in found.samples}
    assert Counter(d.reason for d in found.drops) == {"not drawn": 14, "not an image": 1}


def test_folder_identity_is_content(tmp_path):
    here, there = pictures(tmp_path / "here", 3), pictures(tmp_path / "there", 3)
    same = FolderData(path=str(here)).identity(sha256)
    assert FolderData(path=str(there)).identity(sha256) == same
    assert str(tmp_path) not in canonical(same)
    others = [
        FolderData(path=str(here), prompt="Else?").identity(sha256),
        FolderData(path=str(here), samples=2).identity(sha256),
        FolderData(path=str(here), recursive=False).identity(sha256),
    ]
    save(there / "01.png", BLUE)
    others.append(FolderData(path=str(there)).identity(sha256))
    (here / "00.png").rename(here / "zz.png")
    others.append(FolderData(path=str(here)).identity(sha256))
    (here / "new.txt").write_text("x")
    others.append(FolderData(path=str(here)).identity(sha256))
    texts = {canonical(value) for value in [same, *others]}
    assert len(texts) == 7


def test_folder_reads_contents_through_the_given_hasher_only(tmp_path):
    pictures(tmp_path, 2)
    data = FolderData(path=str(tmp_path))
    assert {s.image.sha256 for s in data.build(0, tmp_path, lambda p: p.name).samples} == {
        "00.png",
        "01.png",
    }
    asked = []
    data.identity(lambda path: asked.append(path) or "x")
    assert asked == [tmp_path / "00.png", tmp_path / "01.png"]


def test_seeded():
    assert not FolderData(path="x").seeded and FolderData(path="x", samples=3).seeded
    assert not JsonlData(path="x").seeded and JsonlData(path="x", samples=3).seeded
    assert ShapesData().seeded


def test_path_that_does_not_exist_suggests_a_sibling(tmp_path):
    (tmp_path / "pictures").mkdir()
    nearest = re.escape(str(tmp_path / "pictures"))
    with pytest.raises(InputError, match=rf"data\.path.*'{tmp_path}/picturs'.*'{nearest}'"):
        FolderData(path=str(tmp_path / "picturs")).check()
    with pytest.raises(InputError, match=rf"data\.path.*'{nearest}'"):
        FolderData(path=str(tmp_path / "picturs" / "deep" / "deeper")).check()
    with pytest.raises(InputError, match=r"data\.path.*no folder '/nowhere-at-all'"):
        FolderData(path="/nowhere-at-all").check()


def test_suggestion_is_of_the_needed_sort(tmp_path):
    (tmp_path / "pictures.zip").touch()
    (tmp_path / "photos").mkdir()
    for path in ("pictures", "pictures.zi/deep"):
        with pytest.raises(InputError) as caught:
            FolderData(path=str(tmp_path / path)).check()
        assert "pictures.zip" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        JsonlData(path=str(tmp_path / "photo")).check()
    assert "photos" not in str(caught.value)
    with pytest.raises(InputError, match=r"Did you mean '.*/pictures\.zip'"):
        JsonlData(path=str(tmp_path / "picture.zip")).check()
    with pytest.raises(InputError, match=r"Did you mean '.*/photos'"):
        JsonlData(path=str(tmp_path / "photo" / "rows.jsonl")).check()


def test_path_of_the_wrong_sort(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"data\.path.*is a file"):
        FolderData(path=str(tmp_path / "file")).check()
    with pytest.raises(InputError, match=r"data\.path.*is a folder"):
        JsonlData(path=str(tmp_path)).check()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"data\.path.*no file"):
        FolderData(path=str(tmp_path / "empty")).check()


def test_paths_may_be_relative_or_at_home(tmp_path, monkeypatch):
    save(tmp_path / "here" / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("here", "~/here"):
        data = FolderData(path=path)
        data.check()
        assert len(data.build(0, tmp_path, sha256).samples) == 1
        assert data.image_root(tmp_path) == tmp_path / "here"


# --- configuration


def test_every_source_has_its_file_and_the_other_way_round():
    assert {path.stem for path in CONF.glob("*.yaml")} >= set(DATA)


@pytest.mark.parametrize("kind", sorted(DATA))
def test_file_states_every_default(kind):
    text = (CONF / f"{kind}.yaml").read_text()
    assert "@package" not in text
    values = yaml.safe_load(text)
    fields = DATA[kind].model_fields
    assert list(values) == list(fields)
    for name, field in fields.items():
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert values[name] == ("???" if name == "path" else default)
        assert field_docs(DATA[kind]).get(name) or name == "kind"
    assert all("#" in line for line in text.splitlines() if not line.startswith("kind:"))
    assert TypeAdapter(AnyData).validate_json(json.dumps(values)).kind == kind


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("shapes", {"samples": 0}),
        ("folder", {"path": ""}),
        ("folder", {"path": "x", "samples": 0}),
        ("folder", {"path": "x", "prompt": ""}),
        ("jsonl", {"path": "x", "on_error": "ignore"}),
        ("jsonl", {"path": "x", "samples": -1}),
        ("llava_665k", {"ocr_images": 0, "text_images": 0}),
    ],
)
def test_bounds(kind, values):
    with pytest.raises(ValidationError, match=list(values)[-1]):
        DATA[kind](**values)


def test_import_is_light():
    code = "import sys, seva_exp.data\nprint(*{'torch', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
