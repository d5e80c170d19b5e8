"""SeVa's padding."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image, ImageOps
from pydantic import Field

from seva_exp.augment.base import ImageAugmentation


class Pad(ImageAugmentation):
    """A black border, so that the picture itself gets smaller behind the processor.

    Parameters of SeVa's released code, first version; torchvision's Pad. Nothing is random.
    """

    kind: Literal["pad"] = "pad"
    padding: int = Field(50, ge=1, le=4096, description="width of the border, px; SeVa: 50")

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB in, RGB that is ``2 * padding`` px wider and higher out."""
        return ImageOps.expand(x, self.padding)
