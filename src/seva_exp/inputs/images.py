"""Reading of picture files as they are found in the wild: right pixels, or a reason why not."""

from __future__ import annotations

import hashlib
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from seva_exp.core.disk import message_of_disk
from seva_exp.core.errors import ChangedFile, StageError
from seva_exp.core.records import ImageRef
from seva_exp.inputs.packed import is_in_place, picture_bytes

SUFFIXES_OF_FORMAT: dict[str, tuple[str, ...]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2",),
}
"""The formats that are read (Pillow's names). Others, such as EPS, would start other programs."""
IMAGE_SUFFIXES = frozenset(s for suffixes in SUFFIXES_OF_FORMAT.values() for s in suffixes)
"""What a picture's file name usually ends with (lower case). Reading goes by content, not by it."""
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
"""How files begin that were meant to be pictures."""
BEGINNINGS = (
    *SIGNATURES, b"RIFF", b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"\xff\x4f", b"\0\0\0",
)  # fmt: skip
"""How files of all formats that are read begin; many others begin so, too."""
MAX_PIXELS = 100_000_000
"""Largest picture that is decoded, in pixels (300 MB as RGB)."""
MIN_SIDE = 4
"""Shortest side that is accepted, in pixels. Image processors guess the channel axis of an array
by looking for a 1 or 3 among its lengths, so they cannot tell channels from pixels below this."""
MAX_ASPECT = 200
"""Largest ratio of the longer to the shorter side; processors refuse more (Qwen-VL's bound)."""
WHITE = (255, 255, 255, 255)

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""How the pictures of telephones begin, from the ninth byte on."""

NOT_AN_IMAGE = "not an image"
HEIC = "HEIC is not read"
NO_FILE = "no such file"
UNREADABLE = "cannot be read"
EMPTY = "empty file"
DAMAGED = "truncated or damaged"
TOO_LARGE = "too large"
TOO_SMALL = "too small"
TOO_LONG = "too elongated"


class UnusableImage(ValueError):
    """A file that gives no picture. ``reason`` is one of a few phrases that can be counted;
    ``detail`` holds the numbers or the decoder's own words."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


def open_image(path: Path | str) -> Image.Image:
    """The picture in ``path``, fully decoded: RGB, 8 bits a channel, no metadata.

    The EXIF rotation is applied, transparency is composited on white, CMYK is converted (without
    its color profile), 16-bit and float gray is scaled to 8 bits, an animation gives its first
    frame. Raises ``UnusableImage`` for everything else; the size is judged by the header, before
    memory is taken for pixels.
    """
    path = Path(path)
    if is_in_place(path):
        return _open_in_place(path)
    _check_file(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnusableImage(UNREADABLE, error.strerror or str(error)) from error
    with file:
        return read_image(file)


def _open_in_place(path: Path) -> Image.Image:
    try:
        content = picture_bytes(path)
    except FileNotFoundError as error:
        raise UnusableImage(NO_FILE) from error
    except OSError as error:
        raise UnusableImage(UNREADABLE, error.strerror or str(error)) from error
    return image_of_bytes(content)


def image_of_bytes(content: bytes) -> Image.Image:
    """As ``open_image``, from a file's content."""
    if not content:
        raise UnusableImage(EMPTY)
    return read_image(BytesIO(content))


def load_image(root: Path, ref: ImageRef) -> Image.Image:
    """The picture of a sample, as ``open_image`` gives it, from a file whose bytes are still those
    of which the sample was made; ``ref.path`` is relative to ``root``. Raises ``StageError`` where
    the file changed, vanished or cannot be read, and ``MemoryError`` where memory ran out."""
    path = root / ref.path
    try:
        content = picture_bytes(path)
    except FileNotFoundError:
        raise _not_as_it_was(path, "vanished") from None
    except OSError as error:
        told = message_of_disk(error, path).removeprefix(f"{path}: ")
        raise StageError(f"{path}: cannot be read: {told}") from error
    if hashlib.sha256(content).hexdigest() != ref.sha256:
        raise _not_as_it_was(path, "changed")
    try:
        return read_image(BytesIO(content))
    except UnusableImage as error:
        if isinstance(error.__cause__, MemoryError):  # these bytes were read before
            raise error.__cause__ from None
        raise StageError(f"{path}: no picture can be made of this file here: {error}.") from error


def image_size(root: Path, ref: ImageRef) -> tuple[int, int]:
    """Width and height in pixels of what ``load_image`` would give, from the file's header alone.
    Raises ``StageError`` where there is no such picture."""
    path = root / ref.path
    try:
        with warnings.catch_warnings(), _file_of(path) as file:
            warnings.simplefilter("ignore")
            with _open(file) as image:
                width, height = image.size
                return (height, width) if _lies_on_its_side(image) else (width, height)
    except FileNotFoundError:
        raise _not_as_it_was(path, "vanished") from None
    except (OSError, UnusableImage) as error:
        if isinstance(error, UnusableImage) and not is_as_it_was(root, ref):
            raise _not_as_it_was(path, "changed") from None
        raise StageError(f"{path}: no picture can be made of this file here: {error}.") from error


def _file_of(path: Path) -> IO[bytes]:
    return BytesIO(picture_bytes(path)) if is_in_place(path) else path.open("rb")


def is_as_it_was(root: Path, ref: ImageRef) -> bool:
    """Whether the file is there, and its bytes are those of which the sample was made."""
    try:
        content = picture_bytes(root / ref.path)
    except OSError:
        return False
    return hashlib.sha256(content).hexdigest() == ref.sha256


def _lies_on_its_side(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # as in _upright
        return False


def _not_as_it_was(path: Path, what: str) -> ChangedFile:
    return ChangedFile(
        f"{path}: this picture {what} since the samples were made. "
        "Restore it, or make the samples anew: run again with force=[samples].",
        path,
    )


def read_image(file: IO[bytes]) -> Image.Image:
    """As ``open_image``, from an open file."""
    with warnings.catch_warnings():  # Pillow warns of what is judged here, and of odd metadata
        warnings.simplefilter("ignore")
        with _open(file) as image:
            _check_size(*image.size)
            return _decode(image)


def _check_file(path: Path) -> None:
    try:
        if not path.exists():
            raise UnusableImage(NO_FILE)
        if not path.is_file():
            raise UnusableImage(NOT_AN_IMAGE, "not a file")
        if path.stat().st_size == 0:
            raise UnusableImage(EMPTY)
    except OSError as error:
        raise UnusableImage(UNREADABLE, error.strerror or str(error)) from error


def _open(file: IO[bytes]) -> Image.Image:
    """Reads the header only."""
    try:
        return _identified(file)
    except UnusableImage:
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(file) from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise _too_large(int(found[0]) if found else None) from error
    except Exception as error:  # foreign bytes make decoders raise errors of many types
        raise UnusableImage(DAMAGED, _words(error)) from error


def _identified(file: IO[bytes]) -> Image.Image:
    """By Pillow; a HEIC by the package pillow-heif, where it is installed."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=tuple(SUFFIXES_OF_FORMAT))
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(12)
        if start[4:8] != b"ftyp" or start[8:] not in HEIC_BRANDS:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise UnusableImage(HEIC, "convert it to PNG, or pip install pillow-heif") from error
    register_heif_opener()
    file.seek(0)
    return Image.open(file, formats=("HEIF",))


def _unidentified(file: IO[bytes]) -> UnusableImage:
    file.seek(0)
    begins_well = file.read(8).startswith(SIGNATURES)
    return UnusableImage(DAMAGED, "broken header") if begins_well else UnusableImage(NOT_AN_IMAGE)


def _too_large(pixels: int | None) -> UnusableImage:
    claim = f"{pixels / 1e6:.0f} megapixels, " if pixels else ""
    return UnusableImage(TOO_LARGE, f"{claim}the limit is {MAX_PIXELS / 1e6:.0f}")


def _check_size(width: int, height: int) -> None:
    """``width`` and ``height`` in pixels, as the header says."""
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise UnusableImage(TOO_SMALL, f"{width}x{height} px, the shorter side needs {MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise _too_large(width * height)
    if long > MAX_ASPECT * short:
        raise UnusableImage(TOO_LONG, f"{width}x{height} px, the limit is 1:{MAX_ASPECT}")


def _decode(image: Image.Image) -> Image.Image:
    try:
        image.load()
        rgb = _to_rgb(_upright(image))
    except UnusableImage:
        raise
    except Exception as error:  # as in _open
        raise UnusableImage(DAMAGED, _words(error)) from error
    rgb.info.clear()
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF rotation. Unreadable EXIF data leaves the picture as it is stored."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # metadata is no reason to lose a picture
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _to_8_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer).convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Gray of more than 8 bits (modes ``I;16``, ``I``, ``F``) to ``L``. Pillow would clip it."""
    import numpy as np

    values = np.asarray(image).astype(np.float32)
    low, high = _value_range(image.mode, float(values.min()), float(values.max()))
    gray = np.rint(np.clip((values - low) * (255.0 / (high - low or 1.0)), 0, 255))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return Image.fromarray(gray.astype(np.uint8))


def _value_range(mode: str, lowest: float, highest: float) -> tuple[float, float]:
    """The values of black and white. Integers are 16-bit data if they fit in it; floats follow
    one of the usual conventions; what fits in none is stretched from its lowest to its highest."""
    if not (abs(lowest) < float("inf") and abs(highest) < float("inf")):  # also false for NaN
        raise UnusableImage(DAMAGED, "holds values that are not finite")
    whites = {"F": (1.0, 255.0, 65535.0)}.get(mode, (65535.0,))
    for white in whites:
        if lowest >= 0 and highest <= white:
            return 0.0, white
    return lowest, highest


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
