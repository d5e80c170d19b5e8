"""A picture on a square, as LLaVA-1.5 shows it to its processor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from threading import Lock

from PIL import Image

_ONE_AT_A_TIME = Lock()
"""transformers cannot be imported by several threads at once."""


def padded(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """Centred on a square of the processor's mean colour (LLaVA-1.5, ``pad`` aspect ratio)."""
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * value) for value in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def squared(image: Image.Image, location: str, revision: str) -> Image.Image:
    """``padded``, of a model that is not loaded."""
    if image.width == image.height:
        return image
    with _ONE_AT_A_TIME:
        mean = image_mean(location, revision)
    return padded(image, mean)


@cache
def image_mean(location: str, revision: str) -> tuple[float, ...]:
    """The mean by which a model's image processor normalises, of which no weights are loaded."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(location, revision=revision, backend="pil")
    return tuple(processor.image_mean)
