"""SeVa's random posterization."""

from __future__ import annotations

from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment import operations
from seva_exp.augment.families import RandomlyApplied


class RandomPosterize(RandomlyApplied):
    """Fewer colors, with a probability.

    Parameters of SeVa's released code, first version; torchvision's RandomPosterize.
    """

    kind: Literal["random_posterize"] = "random_posterize"
    bits: int = Field(2, ge=1, le=8, description="bits kept per channel; SeVa: 2")

    def change(self, x: Image.Image) -> Image.Image:
        return operations.posterize(x, self.bits)
