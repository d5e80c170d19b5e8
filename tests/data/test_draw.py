"""What a draw tries decides the samples, and is all that a key holds of the pictures."""

import hashlib
import json

import pytest
from PIL import Image

from seva_exp.core.errors import InputError
from seva_exp.core.records import Drop
from seva_exp.core.spec import canonical
from seva_exp.data import DATA, CocoData, FolderData, InstructData, JsonlData
from seva_exp.data.draw import NOT_REACHED, collect, draw, tries


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pictures(folder, n=24):
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i:02d}.png")
    return folder


def written(folder, kind, n=24):
    """Rows, or names, of the folder's pictures as a file beside it."""
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    rows = [row | {"image": f"{i:02d}.png", "question": "?", "id": i} for i in range(n)]
    lines = {"jsonl": map(json.dumps, rows), "txt": (row["image"] for row in rows)}
    file = folder.with_suffix(f".{kind}")
    file.write_text("\n".join(lines[kind]))
    return str(file)


SKIP = {"samples": 5, "on_error": "skip"}
SOURCES = {
    "folder": lambda f: FolderData(path=str(f), samples=5),
    "coco": lambda f: CocoData(path=str(f), samples=5),
    "coco_list": lambda f: CocoData(path=str(f), names=written(f, "txt"), **SKIP),
    "jsonl": lambda f: JsonlData(path=written(f, "jsonl"), image_folder=str(f), **SKIP),
    "instruct": lambda f: InstructData(path=written(f, "jsonl"), image_folder=str(f), **SKIP),
}


@pytest.mark.parametrize("broken", [0, 2])
@pytest.mark.parametrize("name", SOURCES)
def test_equal_keys_mean_equal_samples_whatever_file_changes(tmp_path, name, broken, monkeypatch):
    monkeypatch.setattr("seva_exp.data.draw.tries", lambda wanted: wanted + 4)
    folder = pictures(tmp_path / "here")
    data = SOURCES[name](folder)
    other = pictures(tmp_path / "other") / "23.png"
    for sample in data.build(3, tmp_path, sha256).samples[:broken]:
        (folder / sample.image.path).write_bytes(b"so that spares are used")

    def state():
        made = data.build(3, tmp_path, sha256)
        return canonical(data.identity(sha256, seed=3)), repr(made)

    key, made = state()
    kept, moved = 0, 0
    for i in range(24):
        file = folder / f"{i:02d}.png"
        before = file.read_bytes()
        for content in (b"broken", other.read_bytes() + b"x"):
            file.write_bytes(content)
            new_key, new_made = state()
            assert (new_key != key) or (new_made == made), file.name
            kept += new_key == key
            moved += new_made != made
        file.write_bytes(before)
    assert state() == (key, made)
    assert kept >= 2 * (24 - 9 - 2) and moved >= 10


def test_a_key_reads_only_what_may_be_drawn(tmp_path):
    folder = pictures(tmp_path / "here", 241)
    asked = []

    def counted(path):
        asked.append(path.name)
        return "x"

    data = FolderData(path=str(folder), samples=2)
    data.identity(counted, seed=0)
    assert len(asked) == tries(2) == 106
    made = data.build(0, tmp_path, sha256)
    assert {s.id for s in made.samples} <= set(asked)
    asked.clear()
    data.identity(counted)
    assert len(asked) == 241
    asked.clear()
    rows = written(folder, "jsonl", 200)
    JsonlData(path=rows, image_folder=str(folder), samples=2).identity(counted, seed=0)
    assert len({*asked}) == 3, "two pictures and the file: with on_error=stop there are no spares"


def test_a_new_name_changes_the_key(tmp_path):
    data = FolderData(path=str(pictures(tmp_path)), samples=2)
    before = data.identity(sha256, seed=0)
    Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
    assert data.identity(sha256, seed=0) != before


def test_what_is_left_out_is_in_the_key_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("seva_exp.data.draw.tries", lambda wanted: wanted)
    data = FolderData(path=str(pictures(tmp_path)), samples=2)
    key, made = data.identity(sha256, seed=0), data.build(0, tmp_path, sha256)
    (tmp_path / made.drops[0].sample_id).rename(tmp_path / "zz.png")
    assert data.build(0, tmp_path, sha256).samples == made.samples
    assert data.identity(sha256, seed=0) != key


def test_two_seeds_read_different_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("seva_exp.data.draw.tries", lambda wanted: wanted)
    data = FolderData(path=str(pictures(tmp_path)), samples=5)
    assert data.identity(sha256, seed=0) != data.identity(sha256, seed=1)


def test_too_many_unusable_files_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("seva_exp.data.draw.tries", lambda wanted: wanted + 2)
    folder = pictures(tmp_path, 20)
    data = FolderData(path=str(folder), samples=8)
    for sample in data.build(0, tmp_path, sha256).samples[:4]:
        (folder / sample.id).write_bytes(b"broken")
    made = data.build(0, tmp_path, sha256)
    reasons = [drop.reason for drop in made.drops]
    assert len(made.samples) == 6 and reasons.count("not an image") == 4
    assert reasons.count(NOT_REACHED) == 10 and "not drawn" not in reasons


def test_collect_stops_when_it_has_enough():
    seen = []

    def make(name):
        seen.append(name)
        return Drop(name, "bad") if name == "a" else name.upper()

    drawn = draw(["a", "b", "c", "d"], None, 0, "t")
    assert collect(drawn, make)[0] == {"b": "B", "c": "C", "d": "D"}
    found, drops = collect(draw(list("abcdefgh"), 3, 1, "t"), make)
    assert len(found) == 3 and len(found) + len(drops) == 8


# --- what must be given


WITH_PATH = sorted(kind for kind, cls in DATA.items() if "path" in cls.model_fields)


@pytest.mark.parametrize("kind", WITH_PATH)
@pytest.mark.parametrize("where", ["data", "instructions"])
def test_without_its_path_a_source_says_so_and_can_be_planned(kind, where):
    data = DATA[kind]()
    said = data.lacking(where)
    assert said.startswith(f"{where}.path: must be set ({where}.path=F") and said[-1] == "."
    assert len(said.splitlines()) == 1
    fields = data.identity(None, where, seed=0)
    assert fields["kind"] == kind and "files" not in fields and "rows" not in fields
    canonical(fields)
    for work in (lambda: data.check(where), lambda: data.build(0, None, None, where)):
        with pytest.raises(InputError) as caught:
            work()
        assert str(caught.value) == said


@pytest.mark.parametrize("kind", sorted({*DATA} - {*WITH_PATH}))
def test_embedded_sources_lack_nothing(kind):
    assert DATA[kind]().lacking() is None


@pytest.mark.parametrize("kind", sorted({*WITH_PATH} - {"hf"}))
def test_errors_name_the_part_of_the_config(tmp_path, kind):
    for path in ("nowhere", str(tmp_path / "x.json")):
        data = DATA[kind](path=path)
        assert data.lacking() is None
        for work in (
            lambda data=data: data.check("instructions"),
            lambda data=data: data.identity(sha256, "instructions"),
            lambda data=data: data.build(0, tmp_path, sha256, "instructions"),
        ):
            with pytest.raises(InputError, match=r"^instructions\.path: there is no f"):
                work()


def test_every_fault_names_the_part_of_the_config(tmp_path):
    pictures(tmp_path, 1)
    rows = tmp_path / "rows.json"
    rows.write_text("[1]")
    names = tmp_path / "names.txt"
    names.write_text("no.png")
    broken = tmp_path / "sub"
    broken.mkdir()
    (broken / "x.png").write_bytes(b"broken")
    (tmp_path / "empty").mkdir()
    faults = [
        (DATA["instruct"](path=str(rows)), "path"),
        (DATA["llava_665k"](path=str(rows)), "path"),
        (DATA["jsonl"](path=str(rows)), "path"),
        (DATA["jsonl"](path=str(rows), image_folder="none"), "image_folder"),
        (CocoData(path=str(tmp_path), names=str(names)), "names"),
        (CocoData(path=str(tmp_path), names="none"), "names"),
        (CocoData(path=str(tmp_path), prompt="<image>"), "prompt"),
        (FolderData(path=str(tmp_path / "empty")), "path"),
        (DATA["hf"](path=str(tmp_path)), "path"),
        (DATA["hf"](path="a/b", revision="main"), "revision"),
    ]
    for data, field in faults:
        with pytest.raises(InputError, match=rf"^instructions\.{field}") as caught:
            data.check("instructions")
        text = str(caught.value)
        assert "data." not in text.replace("instructions.", "") and len(text.splitlines()) == 1
    with pytest.raises(InputError, match=r"^instructions\.path"):
        FolderData(path=str(broken)).build(0, tmp_path, sha256, "instructions")
