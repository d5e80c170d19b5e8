"""SeVa's random crop."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation


class RandomCrop(ImageAugmentation):
    """A random square of the picture, at its own resolution.

    Parameters of SeVa's released code, first version; torchvision's RandomCrop, with
    ``pad_if_needed``: a picture that is smaller lies somewhere on black (there it is an error).
    """

    kind: Literal["random_crop"] = "random_crop"
    size: int = Field(224, ge=4, le=4096, description="side of the square, px; SeVa: 224")

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB of any size in, RGB of ``size`` x ``size`` px out."""
        spare = (x.width - self.size, x.height - self.size)
        left, top = (rng.randint(min(0, rest), max(0, rest)) for rest in spare)
        return operations.crop(x, left, top, self.size)
