"""Pictures inside Parquet files and tar shards: read in place, refused by file and row."""

import hashlib
import io
import json
import tarfile

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from seva_exp.core.errors import InputError, StageError
from seva_exp.core.spec import canonical
from seva_exp.data import ParquetData, WebdatasetData
from seva_exp.inputs.images import image_size, is_as_it_was, load_image, open_image

KINDS = {"parquet": ParquetData, "webdataset": WebdatasetData}
both = pytest.mark.parametrize("kind", KINDS)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def encoded(i, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (i, 0, 0)).save(file, kind)
    return file.getvalue()


def write_parquet(file, contents, group=2, **columns):
    image = [{"bytes": content, "path": None} for content in contents]
    columns = {"other": [0] * len(image), **columns, "image": image}
    pyarrow.parquet.write_table(pyarrow.table(columns), file, row_group_size=group)


def write_tar(file, members):
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write(kind, file, numbers, contents=None):
    """Samples of the pictures ``numbers`` with the questions q0, q1, ..."""
    contents = contents or [encoded(n) for n in numbers]
    if kind == "parquet":
        write_parquet(file, contents, question=[f"q{n}" for n in numbers])
        return
    members = []
    for n, content in zip(numbers, contents, strict=True):
        members += [(f"{n:04d}.png", content), (f"{n:04d}.txt", f"q{n}\n".encode())]
    write_tar(file, members)


def made_by(kind, folder, **fields):
    question = {"parquet": "question", "webdataset": "txt"}[kind]
    return KINDS[kind](path=str(folder), **{"question_field": question, **fields})


def two_files(kind, folder):
    ending = {"parquet": "parquet", "webdataset": "tar"}[kind]
    folder.mkdir(exist_ok=True)
    names = [f"b.{ending}", f"a.{ending}"]
    write(kind, folder / names[0], range(5))
    write(kind, folder / names[1], range(5, 8))
    return names


@both
def test_files_are_read_in_order_and_in_place(tmp_path, kind):
    b, a = two_files(kind, tmp_path / "in")
    data = made_by(kind, tmp_path / "in")
    data.check()
    made = data.build(0, tmp_path / "work", sha256)
    assert made.drops == [] and not (tmp_path / "work").exists()
    assert [s.prompt for s in made.samples] == [f"q{n}" for n in (5, 6, 7, 0, 1, 2, 3, 4)]
    assert all(s.id.startswith(f"{a}#") for s in made.samples[:3])
    root = data.image_root(tmp_path / "work")
    for sample in reversed(made.samples):
        n = int(sample.prompt[1:])
        assert sample.image.sha256 == hashlib.sha256(encoded(n)).hexdigest()
        assert load_image(root, sample.image).getpixel((0, 0)) == (n, 0, 0)
        assert open_image(root / sample.image.path).size == (16, 12)
        assert image_size(root, sample.image) == (16, 12)
        assert is_as_it_was(root, sample.image)
    other = made_by(kind, tmp_path / "in", files=(b, f"*.{a[2:]}"))
    assert [s.prompt for s in other.build(0, tmp_path, sha256).samples][:5] == [
        f"q{n}" for n in range(5)
    ]
    one = made_by(kind, tmp_path / "in" / a)
    assert [s.prompt for s in one.build(0, tmp_path, sha256).samples] == ["q5", "q6", "q7"]
    assert one.image_root(tmp_path) == root


@both
def test_identity_is_the_files_content_and_no_path(tmp_path, kind):
    b, a = two_files(kind, tmp_path / "in")
    before = canonical(made_by(kind, tmp_path / "in").identity(sha256))
    two_files(kind, tmp_path / "moved")
    moved = made_by(kind, tmp_path / "moved", max_broken=0.5)
    assert canonical(moved.identity(sha256)) == before
    swapped = made_by(kind, tmp_path / "in", files=(b, a))
    assert canonical(swapped.identity(sha256)) != before
    write(kind, tmp_path / "moved" / a, range(5, 9))
    assert canonical(moved.identity(sha256)) != before


@both
def test_a_draw_is_the_rows_that_any_order_would_give(tmp_path, kind):
    two_files(kind, tmp_path / "in")
    data = made_by(kind, tmp_path / "in", samples=3)
    every = {s.id: s for s in made_by(kind, tmp_path / "in").build(0, tmp_path, sha256).samples}
    made = data.build(1, tmp_path, sha256)
    assert len(made.samples) == 3 and {d.reason for d in made.drops} == {"not drawn"}
    assert all(every[s.id] == s for s in made.samples)
    order = list(every)
    assert [s.id for s in made.samples] == sorted((s.id for s in made.samples), key=order.index)
    assert {s.id for s in made.samples} != {s.id for s in data.build(2, tmp_path, sha256).samples}
    assert len(made_by(kind, tmp_path / "in", samples=99).build(1, tmp_path, sha256).samples) == 8


@both
def test_bad_rows_are_refused_by_file_and_row(tmp_path, kind):
    ending = {"parquet": "parquet", "webdataset": "tar"}[kind]
    contents = [encoded(0), encoded(1)[:-30], b"", b"text", encoded(4)]
    write(kind, tmp_path / f"x.{ending}", range(5), contents)
    with pytest.raises(InputError, match=rf"data\.path: row 2 of '.*x\.{ending}'.*truncated"):
        made_by(kind, tmp_path).build(0, tmp_path, sha256)
    made = made_by(kind, tmp_path, on_error="skip").build(0, tmp_path, sha256)
    assert [s.prompt for s in made.samples] == ["q0", "q4"]
    reasons = [d.reason for d in made.drops]
    assert reasons[0] == "truncated or damaged" and reasons[2] == "not an image"
    assert len(reasons) == 3
    drawn = made_by(kind, tmp_path, on_error="skip", samples=2).build(3, tmp_path, sha256)
    assert [s.prompt for s in drawn.samples] == ["q0", "q4"]


@both
def test_a_file_that_is_cut_or_none_is_refused_by_name(tmp_path, kind):
    b, _ = two_files(kind, tmp_path / "in")
    content = (tmp_path / "in" / b).read_bytes()
    for broken in (content[: len(content) // 3], b"", b"\x1f\x8b not this"):
        (tmp_path / "in" / b).write_bytes(broken)
        for fields in ({}, {"on_error": "skip"}, {"samples": 2}):
            with pytest.raises(InputError, match=rf"data\.path: '.*{b}' cannot be read: .*files="):
                made_by(kind, tmp_path / "in", **fields).build(0, tmp_path, sha256)
    with pytest.raises(InputError, match="cannot be read"):
        made_by(kind, tmp_path / "in" / b).check()


def test_a_damaged_page_of_a_parquet_file_is_refused_by_row(tmp_path):
    write("parquet", tmp_path / "x.parquet", range(6))
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    column = pyarrow.parquet.ParquetFile(tmp_path / "x.parquet").metadata.row_group(1)
    start = column.column(column.num_columns - 2).data_page_offset
    content[start : start + 12] = b"\xff" * 12
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.parquet' cannot be read: after row 2"):
        made_by("parquet", tmp_path).build(0, tmp_path, sha256)


def test_a_broken_header_does_not_end_a_tar_in_silence(tmp_path):
    write("webdataset", tmp_path / "x.tar", range(4))
    with tarfile.open(tmp_path / "x.tar") as tar:
        start = tar.getmember("0002.png").offset
    content = bytearray((tmp_path / "x.tar").read_bytes())
    content[start : start + 20] = b"?" * 20
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"after '0001': broken header at byte \d+"):
        made_by("webdataset", tmp_path).build(0, tmp_path, sha256)


@both
def test_a_picture_that_changed_is_not_taken_for_the_one_of_before(tmp_path, kind):
    _, a = two_files(kind, tmp_path)
    data = made_by(kind, tmp_path)
    samples = data.build(0, tmp_path, sha256).samples
    write(kind, tmp_path / a, range(20, 23))
    with pytest.raises(StageError, match="changed since the samples were made"):
        load_image(tmp_path, samples[0].image)
    assert not is_as_it_was(tmp_path, samples[0].image)
    (tmp_path / a).unlink()
    with pytest.raises(StageError, match="vanished"):
        load_image(tmp_path, samples[0].image)
    with pytest.raises(StageError, match="vanished"):
        image_size(tmp_path, samples[0].image)


def test_a_file_may_be_named_like_a_place(tmp_path):
    (tmp_path / "x.tar::0+5").write_bytes(encoded(7))
    assert open_image(tmp_path / "x.tar::0+5").getpixel((0, 0)) == (7, 0, 0)


@both
def test_paths_and_fields_that_do_not_exist(tmp_path, kind):
    two_files(kind, tmp_path)
    with pytest.raises(InputError, match=r"data\.files: no file 'c\*'"):
        made_by(kind, tmp_path, files=("c*",)).check()
    with pytest.raises(InputError, match=r"data\.path: there is no folder"):
        made_by(kind, tmp_path / "nowhere").check()
    with pytest.raises(InputError, match=r"data\.files: '/x'"):
        made_by(kind, tmp_path, files=("/x",)).check()
    with pytest.raises(InputError, match="questio"):
        made_by(kind, tmp_path, question_field="questio").check()
    empty = tmp_path / "none"
    write_parquet(empty, []) if kind == "parquet" else write_tar(empty, [])
    with pytest.raises(InputError, match=r"data\.path: there is no row in '.*none'"):
        made_by(kind, empty, question_field=None).check()


def test_parquet_columns(tmp_path):
    turns = [[{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "So."}]] * 2
    write_parquet(tmp_path / "a.parquet", [encoded(0), encoded(1)], talk=turns)
    data = ParquetData(path=str(tmp_path), question_field="talk", response_field="talk")
    assert [(s.prompt, s.response) for s in data.build(0, tmp_path, sha256).samples] == [
        ("Why?", "So.")
    ] * 2
    pictures = {"plain": [encoded(2)], "listed": [[encoded(3)]], "named": ["a.png"], "no": [None]}
    pyarrow.parquet.write_table(pyarrow.table(pictures), tmp_path / "b.parquet")
    for n, field in ((2, "plain"), (3, "listed")):
        data = ParquetData(path=str(tmp_path / "b.parquet"), image_field=field)
        [sample] = data.build(0, tmp_path, sha256).samples
        assert sample.id == "b.parquet#1" and sample.prompt == "Describe the image in detail."
        assert load_image(data.image_root(tmp_path), sample.image).getpixel((0, 0)) == (n, 0, 0)
    for field, reason in (("named", "not in the file"), ("no", "missing")):
        with pytest.raises(InputError, match=f"row 1 .*b.parquet.*{reason}"):
            ParquetData(path=str(tmp_path / "b.parquet"), image_field=field).build(
                0, tmp_path, sha256
            )


def test_webdataset_names(tmp_path):
    about = json.dumps({"q": "Which?", "a": "That."}).encode()
    members = [
        ("d/._0.png", b"x"),
        ("d/0.seg.png", encoded(0)),
        ("d/0.jpg", encoded(1, "JPEG")),
        ("d/0.json", about),
        ("e/0.PNG", encoded(2)),
        ("e/0.json", about),
        ("d/0.png", encoded(3)),
    ]
    write_tar(tmp_path / "x.tar", members)
    fields = {"question_field": "json.q", "response_field": "json.a", "on_error": "skip"}
    data = WebdatasetData(path=str(tmp_path), **fields)
    made = data.build(0, tmp_path, sha256)
    assert [(s.id, s.prompt, s.response) for s in made.samples] == [
        ("x.tar#d/0", "Which?", "That."),
        ("x.tar#e/0", "Which?", "That."),
    ]
    assert [(d.sample_id, d.reason) for d in made.drops] == [("x.tar#d/0#3", "duplicate id")]
    segments = WebdatasetData(path=str(tmp_path), image_field="seg.png", **fields)
    [sample] = segments.build(0, tmp_path, sha256).samples
    assert load_image(tmp_path, sample.image).getpixel((0, 0)) == (0, 0, 0)
