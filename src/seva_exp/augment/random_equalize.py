"""SeVa's random equalization."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from seva_exp.augment import operations
from seva_exp.augment.families import RandomlyApplied


class RandomEqualize(RandomlyApplied):
    """Each channel's histogram made flat, with a probability.

    Parameters of SeVa's released code, first version; torchvision's RandomEqualize.
    """

    kind: Literal["random_equalize"] = "random_equalize"

    def change(self, x: Image.Image) -> Image.Image:
        return operations.equalize(x)
