"""Pictures by a list of names: duplicates and missing ones are told with their place."""

import hashlib
import json

import pytest
from PIL import Image

from seva_exp.core.errors import InputError
from seva_exp.core.spec import canonical
from seva_exp.data import CocoData


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pictures(folder, n=8):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        name = f"COCO_train2014_{i:012d}.jpg"
        Image.new("RGB", (16, 12), (i * 20, 0, 0)).save(folder / name)
    return folder


def name(i):
    return f"COCO_train2014_{i:012d}.jpg"


def listed(tmp_path, content, **fields):
    folder = pictures(tmp_path / "train2014")
    file = tmp_path / "names"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CocoData(path=str(folder), names=str(file), **fields)


def test_a_list_decides_what_and_in_which_order(tmp_path):
    data = listed(tmp_path, f"\ufeff{name(3)}\n\n  {name(1)}  \n./{name(2)}\n")
    data.check()
    made = data.build(0, tmp_path, sha256)
    assert [s.id for s in made.samples] == [name(3), name(1), name(2)] and not made.drops
    assert made.samples[0].prompt == "Describe the image in detail."
    assert made.samples[0].image.sha256 == sha256(data.image_root(tmp_path) / name(3))
    as_json = listed(tmp_path, json.dumps([name(3), name(1), name(2)]))
    assert as_json.build(0, tmp_path, sha256) == made


def test_a_repeated_name_is_counted(tmp_path):
    data = listed(tmp_path, "\n".join(map(name, [0, 1, 0, 2, 0])))
    made = data.build(0, tmp_path, sha256)
    assert [s.id for s in made.samples] == [name(0), name(1), name(2)]
    found = [(d.sample_id, d.reason, d.detail) for d in made.drops]
    assert found == [
        (name(0), "duplicate name", "line 3, as in line 1"),
        (name(0), "duplicate name", "line 5, as in line 1"),
    ]


@pytest.mark.parametrize("with_list", [True, False])
def test_an_equal_picture_is_counted(tmp_path, with_list):
    data = listed(tmp_path, "\n".join(map(name, range(8))))
    folder = tmp_path / "train2014"
    (folder / name(5)).write_bytes((folder / name(2)).read_bytes())
    if not with_list:
        data = CocoData(path=str(folder))
    made = data.build(0, tmp_path, sha256)
    (drop,) = made.drops
    assert (drop.sample_id, drop.reason) == (name(5), "duplicate picture")
    assert repr(name(2)) in drop.detail and len(made.samples) == 7
    drawn = data.model_copy(update={"samples": 7}).build(0, tmp_path, sha256)
    assert len(drawn.samples) == 7, "another picture takes the place of a duplicate"


FAULTS = [
    ("no.jpg", "no such file", "no.jpg"),
    ("../out.jpg", "outside the folder", "../out.jpg"),
    ("/etc/hostname", "outside the folder", "/etc/hostname"),
    ("broken.jpg", "not an image", "broken.jpg"),
    (b"\xff.jpg", "file name is not UTF-8", "\\udcff.jpg"),
]


@pytest.mark.parametrize(("entry", "reason", "shown"), FAULTS)
def test_a_bad_name_stops_with_its_line_or_is_skipped(tmp_path, entry, reason, shown):
    raw = entry if isinstance(entry, bytes) else entry.encode()
    content = b"\n\n" + name(0).encode() + b"\n" + raw + b"\n" + name(1).encode()
    data = listed(tmp_path, content)
    (tmp_path / "train2014" / "broken.jpg").write_text("x")
    with pytest.raises(InputError) as caught:
        data.build(0, tmp_path, sha256)
    message = str(caught.value)
    assert message.startswith("data.names: ") and " line 4: " in message and reason in message
    assert "data.on_error=skip" in message and len(message.splitlines()) == 1
    message.encode()
    data = data.model_copy(update={"on_error": "skip"})
    made = data.build(0, tmp_path, sha256)
    assert [s.id for s in made.samples] == [name(0), name(1)]
    (drop,) = made.drops
    assert (drop.sample_id, drop.reason) == (shown, reason) and drop.detail.startswith("line 4")
    canonical([drop.sample_id, data.identity(sha256)]).encode()


@pytest.mark.parametrize("entry", [3, None, "", " ", ["x"], {}])
def test_a_json_list_of_something_else(tmp_path, entry):
    content = json.dumps([name(0), entry])
    with pytest.raises(InputError, match=r"data\.names: .* entry 2: not a name"):
        listed(tmp_path, content).check()
    made = listed(tmp_path, content, on_error="skip").build(0, tmp_path, sha256)
    assert [d.reason for d in made.drops] == ["not a name"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no usable name"),
        (" \n\n", "no usable name"),
        ('["a.jpg"', "cut off or no valid JSON"),
        ("no.jpg", "no such file"),
    ],
)
def test_check_looks_at_the_list(tmp_path, content, said):
    with pytest.raises(InputError, match=rf"^data\.names: .*{said}"):
        listed(tmp_path, content).check()
    data = listed(tmp_path, content)
    with pytest.raises(InputError, match=r"data\.names.*Did you mean '.*/names'"):
        data.model_copy(update={"names": str(tmp_path / "nams")}).check()


def test_without_a_list_other_files_are_left_out(tmp_path):
    folder = pictures(tmp_path / "train2014")
    (folder / "notes.txt").write_text("x")
    made = CocoData(path=str(folder)).build(0, tmp_path, sha256)
    assert len(made.samples) == 8
    assert [(d.sample_id, d.reason) for d in made.drops] == [("notes.txt", "not an image")]


def test_draw(tmp_path):
    data = listed(tmp_path, "\n".join(map(name, range(8))), samples=3)

    def ids(seed):
        made = data.build(seed, tmp_path, sha256)
        assert len(made.drops) == 5 and {d.reason for d in made.drops} == {"not drawn"}
        return [s.id for s in made.samples]

    assert ids(0) == ids(0) == sorted(ids(0)) and len(ids(0)) == 3
    assert len({tuple(ids(seed)) for seed in range(6)}) > 3
    assert data.seeded and not CocoData().seeded


def test_identity_is_content(tmp_path):
    texts = "\n".join(map(name, range(4)))
    data, other = listed(tmp_path / "a", texts), listed(tmp_path / "b", texts)
    key = canonical(data.identity(sha256))
    assert canonical(other.identity(sha256)) == key and str(tmp_path) not in key
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "train2014" / name(7))
    assert canonical(data.identity(sha256)) == key, "a picture that is not listed decides nothing"
    keys = {key}
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "train2014" / name(1))
    keys.add(canonical(data.identity(sha256)))
    keys.add(canonical(data.model_copy(update={"samples": 2}).identity(sha256)))
    keys.add(canonical(listed(tmp_path / "a", "\n" + texts).identity(sha256)))  # lines are told
    keys.add(canonical(listed(tmp_path / "a", texts + "\n" + name(0)).identity(sha256)))
    assert len(keys) == 5


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for sub in ("a", "b"):
        (tmp_path / sub).mkdir()
