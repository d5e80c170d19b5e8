"""SeVa's random contrast stretch."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from seva_exp.augment import operations
from seva_exp.augment.families import RandomlyApplied


class RandomAutocontrast(RandomlyApplied):
    """Each channel stretched to 0 .. 255, with a probability; one that has black and white stays.

    Parameters of SeVa's released code, first version; torchvision's RandomAutocontrast.
    """

    kind: Literal["random_autocontrast"] = "random_autocontrast"

    def change(self, x: Image.Image) -> Image.Image:
        return operations.autocontrast(x)
