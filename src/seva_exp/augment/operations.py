"""Operations on RGB pictures, with torchvision's semantics; each returns a new picture."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, right and bottom exclusive."""
Range = tuple[float, float]
Matrix = tuple[tuple[float, float], tuple[float, float]]
"""Rows of a linear map of (x, y), y pointing down."""
CROP_TRIES = 10
HUES = 255
"""Steps of a full turn in Pillow's hue channel: 0 and 255 are both red."""


def draw_crop(rng: random.Random, width: int, height: int, scale: Range, ratio: Range) -> Box:
    """A box inside ``width`` x ``height`` px with a share of the area drawn from ``scale`` and a
    width/height drawn log-uniformly from ``ratio``; the largest central one if none fits."""
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    return _central_crop(width, height, ratio)


def _central_crop(width: int, height: int, ratio: Range) -> Box:
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    w, h = max(w, 1), max(h, 1)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized_crop(image: Image.Image, box: Box, size: int) -> Image.Image:
    """The part in ``box`` as a picture of ``size`` x ``size`` px (bilinear, antialiased)."""
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def crop(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    """The square of ``size`` px whose corner is at (left, top); black where the picture ends."""
    return image.crop((left, top, left + size, top + size))


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Turned counter-clockwise about its center (nearest pixel); black where nothing comes from."""
    return image.rotate(degrees)


def affine(
    image: Image.Image, linear: Matrix, shift: Range = (0.0, 0.0), center: Range = (0.0, 0.0)
) -> Image.Image:
    """The point p goes to ``linear (p - center) + center + shift``, all in pixels (nearest pixel);
    black where nothing comes from."""
    (a, b), (c, d) = linear
    determinant = a * d - b * c
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    x, y = center[0] + shift[0], center[1] + shift[1]
    back = (a, b, center[0] - a * x - b * y, c, d, center[1] - c * x - d * y)
    return image.transform(image.size, Image.Transform.AFFINE, back)


def flip(image: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(image)


def to_gray(image: Image.Image) -> Image.Image:
    """Without color, still RGB."""
    return image.convert("L").convert("RGB")


def blur(image: Image.Image, radius: float) -> Image.Image:
    """Gaussian blur; ``radius`` is its standard deviation in pixels."""
    return image.filter(ImageFilter.GaussianBlur(radius))


def scale_brightness(image: Image.Image, factor: float) -> Image.Image:
    """0 gives black, 1 the picture itself."""
    return ImageEnhance.Brightness(image).enhance(factor)


def scale_contrast(image: Image.Image, factor: float) -> Image.Image:
    """0 gives the mean gray everywhere, 1 the picture itself."""
    return ImageEnhance.Contrast(image).enhance(factor)


def scale_saturation(image: Image.Image, factor: float) -> Image.Image:
    """0 gives gray, 1 the picture itself."""
    return ImageEnhance.Color(image).enhance(factor)


def scale_sharpness(image: Image.Image, factor: float) -> Image.Image:
    """0 gives a smoothed picture, 1 the picture itself, more is sharper."""
    return ImageEnhance.Sharpness(image).enhance(factor)


def invert(image: Image.Image) -> Image.Image:
    """Every value v becomes 255 - v."""
    return ImageOps.invert(image)


def equalize(image: Image.Image) -> Image.Image:
    """Each channel's values spread so that they are about equally frequent."""
    return ImageOps.equalize(image)


def autocontrast(image: Image.Image) -> Image.Image:
    """Each channel's values stretched to 0 .. 255."""
    return ImageOps.autocontrast(image)


def posterize(image: Image.Image, bits: int) -> Image.Image:
    """Only the highest ``bits`` (1 .. 8) of each value are kept."""
    return ImageOps.posterize(image, bits)


def solarize(image: Image.Image, threshold: float) -> Image.Image:
    """Values at or above ``threshold`` are inverted."""
    return ImageOps.solarize(image, threshold)  # type: ignore[arg-type]  # compares only


def shift_hue(image: Image.Image, turns: float) -> Image.Image:
    """Rotates the hue by ``turns`` of a full circle, in steps of 1/255."""
    steps = round(turns * HUES) % HUES
    if not steps:
        return image.copy()
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(h + steps) % HUES for h in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


Adjustment = tuple[Callable[["Image.Image", float], "Image.Image"], float]
"""One operation of a color jitter with its drawn parameter."""


def draw_jitter(
    rng: random.Random, brightness: float, contrast: float, saturation: float, hue: float
) -> list[Adjustment]:
    """The adjustments of one color jitter, in their random order.

    Factors are drawn from U(max(0, 1 - strength), 1 + strength), the hue's shift from
    U(-hue, hue) in turns. A strength of 0 leaves its operation out.
    """
    scales = (
        (scale_brightness, brightness),
        (scale_contrast, contrast),
        (scale_saturation, saturation),
    )
    adjustments: list[Adjustment] = [
        (scale, rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength))
        for scale, strength in scales
        if strength
    ]
    if hue:
        adjustments.append((shift_hue, rng.uniform(-hue, hue)))
    rng.shuffle(adjustments)
    return adjustments


def jitter(image: Image.Image, adjustments: list[Adjustment]) -> Image.Image:
    """Applies the adjustments one after the other."""
    for operation, value in adjustments:
        image = operation(image, value)
    return image.copy()
