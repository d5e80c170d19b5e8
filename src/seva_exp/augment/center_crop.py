"""SeVa's central crop."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation


class CenterCrop(ImageAugmentation):
    """The square in the middle of the picture, at its own resolution; a picture that is smaller is
    centred on black.

    Parameters of SeVa's released code, first version; torchvision's CenterCrop. Nothing is random.
    """

    kind: Literal["center_crop"] = "center_crop"
    size: int = Field(128, ge=4, le=4096, description="side of the square, px; SeVa: 128")

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB of any size in, RGB of ``size`` x ``size`` px out."""
        left, top = (_start(side, self.size) for side in x.size)
        return operations.crop(x, left, top, self.size)


def _start(side: int, size: int) -> int:
    """Where the square begins, in pixels; torchvision rounds what it cuts half to even."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)
