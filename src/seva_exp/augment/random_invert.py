"""SeVa's random inversion."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from seva_exp.augment import operations
from seva_exp.augment.families import RandomlyApplied


class RandomInvert(RandomlyApplied):
    """The negative, every value v as 255 - v, with a probability.

    Parameters of SeVa's released code, first version; torchvision's RandomInvert.
    """

    kind: Literal["random_invert"] = "random_invert"

    def change(self, x: Image.Image) -> Image.Image:
        return operations.invert(x)
