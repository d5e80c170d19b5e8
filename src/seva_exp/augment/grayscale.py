"""SeVa's grayscale."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation


class Grayscale(ImageAugmentation):
    """The picture without its colors (SeVa's released code, first version). Nothing is random."""

    kind: Literal["grayscale"] = "grayscale"

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB in, gray RGB of the same size out."""
        return operations.to_gray(x)
