"""Real photographs and odd files, through the whole pipeline."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
import skimage
from PIL import Image

SMALL = ["benchmark.shapes.images=4", "tracker=none", "dpo.warmup_ratio=0"]
PHOTOGRAPHS = sorted(
    file
    for file in (Path(skimage.__file__).parent / "data").iterdir()
    if file.suffix in (".png", ".jpg", ".jpeg")
)


@pytest.fixture
def photographs(tmp_path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    assert len(PHOTOGRAPHS) >= 5
    for file in PHOTOGRAPHS:
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_folder_of_photographs_goes_through_the_whole_pipeline(cli, tmp_path, photographs):
    done = cli("+aug=diffusion_noise", "data=folder", f"data.path={photographs}", *SMALL)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "latest"
    report = json.loads((folder / "report.json").read_text())
    assert report["pairs"]["sampled"] == len(PHOTOGRAPHS)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 2 * min(report["pairs"]["kept"], 10)
    assert "The image shows" in page  # nonsense of a tiny model, shown as it is
    assert 'href="changed.html"' in page
    assert "What changed" in (folder / "changed.html").read_text(encoding="utf-8")
    assert (folder / "adapter" / "adapter_config.json").is_file()


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )


@pytest.fixture
def odd(tmp_path) -> Path:
    folder = tmp_path / "odd"
    folder.mkdir()
    photos = [Image.open(f).convert("RGB").resize((96, 64)) for f in PHOTOGRAPHS[:6]]
    photos[0].save(folder / "good.jpg")
    photos[1].convert("CMYK").save(folder / "cmyk.jpg")
    photos[2].convert("P").save(folder / "palette.png", transparency=0)
    Image.new("I;16", (40, 30), 30000).save(folder / "deep.png")
    photos[3].save(folder / "moving.gif", save_all=True, append_images=photos[4:5])
    exif = Image.Exif()
    exif[274] = 6
    photos[5].save(folder / "turned.jpg", exif=exif)
    whole = (folder / "good.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "huge.png").write_bytes(_png_that_claims(60000, 60000))
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    return folder


USABLE = {"good.jpg", "cmyk.jpg", "palette.png", "deep.png", "moving.gif", "turned.jpg"}
UNUSABLE = {"cut.jpg", "empty.png", "notes.txt", "huge.png", "dot.png"}


def test_odd_files_are_used_or_named_and_the_run_goes_on(cli, tmp_path, odd):
    done = cli(
        "+aug=diffusion_noise", "data=folder", f"data.path={odd}", "data.max_broken=1", *SMALL
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "latest"
    lines = (folder / "samples" / "samples.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == USABLE
    drops = [json.loads(x) for x in (folder / "samples" / "drops.jsonl").read_text().splitlines()]
    assert {drop["sample_id"] for drop in drops} == UNUSABLE
    assert all(drop["reason"] for drop in drops)
    for name in UNUSABLE:
        assert f"left out: {name}: " in done.stdout


def test_no_usable_picture_is_an_input_error(cli, odd):
    for name in USABLE:
        (odd / name).unlink()
    done = cli(
        "+aug=diffusion_noise", "data=folder", f"data.path={odd}", "data.max_broken=1", *SMALL
    )
    assert done.returncode == 2
    assert "data.path" in done.stderr
    assert "Traceback" not in done.stderr


def test_jsonl_rows_give_each_picture_its_question(cli, tmp_path, photographs):
    """With a view that changes the pictures themselves."""
    rows = [
        {"image": file.name, "question": f"What is picture {i}?"}
        for i, file in enumerate(PHOTOGRAPHS[:5])
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["+aug=moco", "data=jsonl", f"data.path={file}", f"data.image_folder={photographs}"]
    done = cli(*words, "stop_after=pairs", *SMALL)
    assert done.returncode == 0, done.stderr
    for view in ("clean", "moco"):
        answers = (tmp_path / "runs" / "latest" / f"answers.{view}" / "answers.jsonl").read_text()
        asked = [json.loads(line)["asked"] for line in answers.splitlines()]
        assert asked == [row["question"] for row in rows]
