"""Odd picture files give the right pixels, or a reason."""

import hashlib
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from seva_exp.core.errors import StageError
from seva_exp.core.records import ImageRef
from seva_exp.inputs.images import MAX_PIXELS, UnusableImage, load_image, open_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(size=(8, 6)):
    """A picture whose top left corner alone is red; the rest is blue."""
    image = Image.new("RGB", size, BLUE)
    image.putpixel((0, 0), RED)
    return image


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def rejection(path):
    with pytest.raises(UnusableImage) as caught:
        open_image(path)
    return caught.value


def test_plain_picture_keeps_its_pixels(tmp_path):
    corners().save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert (image.mode, image.size) == ("RGB", (8, 6))
    assert image.tobytes() == corners().tobytes()


@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [(1, (8, 6), (0, 0)), (3, (8, 6), (7, 5)), (6, (6, 8), (5, 0)), (8, (6, 8), (0, 7))],
)
@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_exif_rotation_is_applied_once(tmp_path, format, orientation, size, red_at):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "webp" else {}
    corners().save(tmp_path / f"a.{format}", exif=exif, **options)
    image = open_image(tmp_path / f"a.{format}")
    assert image.size == size
    assert image.getpixel(red_at) == RED
    assert not image.info and not image.getexif()


def test_exif_rotated_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (64, 32), BLUE)
    picture.paste(RED, (0, 0, 32, 32))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = open_image(tmp_path / "a.jpg")
    assert image.size == (32, 64)
    assert image.getpixel((16, 8))[0] > 240 and image.getpixel((16, 56))[2] > 240


def test_unreadable_exif_does_not_lose_the_picture(tmp_path):
    corners((64, 32)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert open_image(tmp_path / "a.jpg").size == (64, 32)


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    r, g, b = open_image(tmp_path / "a.jpg").getpixel((8, 8))
    assert r > 240 and g < 15 and b < 15


def test_palette_transparency_lies_on_white(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.putpixel((2, 0), 2)
    image.save(tmp_path / "a.png", transparency=bytes([0, 255, 128]))
    opened = open_image(tmp_path / "a.png")
    assert opened.getpixel((0, 0)) == WHITE
    assert opened.getpixel((1, 0)) == GREEN
    assert opened.getpixel((2, 0)) == pytest.approx((127, 127, 255), abs=1)


@pytest.mark.parametrize(
    ("mode", "half", "expected"),
    [("RGBA", (255, 0, 0, 128), (255, 127, 127)), ("LA", (0, 128), (127, 127, 127))],
)
def test_alpha_lies_on_white(tmp_path, mode, half, expected):
    Image.new(mode, (8, 8), half).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((3, 3)) == pytest.approx(expected, abs=1)


def test_transparent_color_of_rgb_lies_on_white(tmp_path):
    corners().save(tmp_path / "a.png", transparency=BLUE)
    image = open_image(tmp_path / "a.png")
    assert image.getpixel((0, 0)) == RED and image.getpixel((5, 5)) == WHITE


def test_16_bit_png_is_scaled(tmp_path):
    values = np.full((4, 5), 32768, np.uint16)
    values[0, :4] = 0, 257, 25700, 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "I;16"
    image = open_image(tmp_path / "a.png")
    assert [image.getpixel((x, 0))[0] for x in range(5)] == [0, 1, 100, 255, 128]
    assert image.getpixel((2, 0)) == (100, 100, 100)


def test_dark_16_bit_png_stays_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 255, np.uint16)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (1, 1, 1)


def test_transparent_gray_of_16_bits_lies_on_white(tmp_path):
    values = np.full((4, 4), 1000, np.uint16)
    values[0, 0] = 2570
    Image.fromarray(values).save(tmp_path / "a.png", transparency=1000)
    image = open_image(tmp_path / "a.png")
    assert image.getpixel((0, 0)) == (10, 10, 10) and image.getpixel((1, 1)) == WHITE


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0.0, 0.5, 1.0], np.float32), [0, 128, 255]),
        (np.array([0.0, 100.0, 255.0], np.float32), [0, 100, 255]),
        (np.array([-2.0, 0.0, 2.0], np.float32), [0, 128, 255]),
        (np.array([0, 25700, 65535], np.int32), [0, 100, 255]),
        (np.array([0, 2**30, 2**31 - 1], np.int32), [0, 128, 255]),
    ],
)
def test_other_deep_gray_is_scaled(tmp_path, values, expected):
    Image.fromarray(np.tile(values.repeat(2), (4, 1))).save(tmp_path / "a.tif")
    image = open_image(tmp_path / "a.tif")
    assert [image.getpixel((x, 2))[0] for x in (0, 2, 4)] == expected


def test_floats_that_are_not_finite_are_refused(tmp_path):
    values = np.zeros((4, 4), np.float32)
    values[1, 1] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert "not finite" in rejection(tmp_path / "a.tif").detail


def test_animated_gif_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in (GREEN, RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as stored:
        assert stored.n_frames == 3
    assert open_image(tmp_path / "a.gif").getpixel((4, 4)) == GREEN


@pytest.mark.parametrize(
    "content", [b"hello\n", b"P6 is how some texts begin", b"%!PS-Adobe-3.0 EPSF"]
)
def test_text_is_not_an_image(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content * 100)
    assert rejection(tmp_path / "a.jpg").reason in ("not an image", "truncated or damaged")


def test_text_file_is_named_not_an_image(tmp_path):
    (tmp_path / "a.txt").write_text("just words\n")
    assert rejection(tmp_path / "a.txt").reason == "not an image"


def test_zero_bytes(tmp_path):
    (tmp_path / "a.png").touch()
    assert rejection(tmp_path / "a.png").reason == "empty file"


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "bmp", "tif"])
def test_truncated(tmp_path, format):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(tmp_path / f"whole.{format}")
    content = (tmp_path / f"whole.{format}").read_bytes()
    (tmp_path / f"a.{format}").write_bytes(content[: len(content) // 2])
    open_image(tmp_path / f"whole.{format}")
    assert rejection(tmp_path / f"a.{format}").reason == "truncated or damaged"


@pytest.mark.parametrize("length", [8, 30, 33])
def test_header_that_ends_early_is_damaged(tmp_path, length):
    (tmp_path / "a.png").write_bytes(png_header(16, 16)[:length])
    assert rejection(tmp_path / "a.png").reason == "truncated or damaged"


@pytest.mark.parametrize("side", [60000, 11000])
def test_huge_header_is_refused_without_decoding(tmp_path, monkeypatch, side):
    """11000 x 11000 is below Pillow's own limit for errors, above ours."""
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    monkeypatch.setattr("seva_exp.inputs.images._decode", lambda image: pytest.fail("decoded"))
    error = rejection(tmp_path / "a.png")
    assert error.reason == "too large"
    assert f"{side * side / 1e6:.0f} megapixels" in error.detail


def test_largest_size_is_no_error_and_warns_nobody(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png_header(10000, MAX_PIXELS // 10000))
    monkeypatch.setattr("seva_exp.inputs.images._decode", lambda image: image.size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(tmp_path / "a.png") == (10000, 10000)


@pytest.mark.parametrize("size", [(1, 1), (3, 100), (100, 3)])
def test_too_small(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert rejection(tmp_path / "a.png").reason == "too small"


def test_smallest_and_longest_that_are_accepted(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (800, 4)).save(tmp_path / "b.png")
    assert open_image(tmp_path / "a.png").size == (4, 4)
    assert open_image(tmp_path / "b.png").size == (800, 4)


@pytest.mark.parametrize("size", [(801, 4), (4, 801)])
def test_too_elongated(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert rejection(tmp_path / "a.png").reason == "too elongated"


def test_missing_file_and_folder(tmp_path):
    assert rejection(tmp_path / "nothing.png").reason == "no such file"
    assert rejection(tmp_path).reason == "not an image"


# --- the picture of a sample


def ref(root, name):
    return ImageRef(name, hashlib.sha256((root / name).read_bytes()).hexdigest())


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "gif", "bmp", "tif", "ppm", "jp2"])
def test_picture_of_a_sample_is_the_one_that_was_checked(tmp_path, format):
    (tmp_path / "sub").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "sub" / f"a.{format}")
    image = load_image(tmp_path, ref(tmp_path, f"sub/a.{format}"))
    assert image.mode == "RGB" and not image.info
    assert image.tobytes() == open_image(tmp_path / "sub" / f"a.{format}").tobytes()


def test_picture_that_changed_is_refused(tmp_path):
    file = tmp_path / "a.bmp"
    corners().save(file)
    sample, before = ref(tmp_path, "a.bmp"), file.stat()
    Image.new("RGB", (8, 6), GREEN).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StageError, match=r"a\.bmp: .*changed since the samples.*run again"):
        load_image(tmp_path, sample)
    file.unlink()
    with pytest.raises(StageError, match=r"a\.bmp: .*vanished since the samples were made"):
        load_image(tmp_path, sample)
    file.mkdir()
    with pytest.raises(StageError, match=r"a\.bmp: cannot be read"):
        load_image(tmp_path, sample)


def test_sample_without_a_picture_is_a_stage_error(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(16, 16)[:30])
    with pytest.raises(StageError, match=r"a\.png: .*truncated or damaged"):
        load_image(tmp_path, ref(tmp_path, "a.png"))
