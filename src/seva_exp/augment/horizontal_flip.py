"""SeVa's horizontal flip."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from seva_exp.augment import operations
from seva_exp.augment.families import RandomlyApplied


class HorizontalFlip(RandomlyApplied):
    """The mirror image, with a probability.

    Parameters of SeVa's released code, first version; torchvision's RandomHorizontalFlip.
    """

    kind: Literal["horizontal_flip"] = "horizontal_flip"

    def change(self, x: Image.Image) -> Image.Image:
        return operations.flip(x)
