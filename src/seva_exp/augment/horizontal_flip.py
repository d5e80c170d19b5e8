"""SeVa's horizontal flip."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation

if TYPE_CHECKING:
    from PIL import Image


class HorizontalFlip(ImageAugmentation):
    """The mirror image, with a probability (SeVa's released code, first version).

    A picture that is not flipped gives the clean answer again; that pair is then filtered out.
    """

    kind: Literal["horizontal_flip"] = "horizontal_flip"
    probability: float = Field(0.5, ge=0, le=1, description="of a mirror image; SeVa: 0.5")

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB in, RGB of the same size out."""
        return operations.flip(x) if rng.random() < self.probability else x.copy()
