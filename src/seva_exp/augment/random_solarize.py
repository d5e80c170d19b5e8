"""SeVa's random solarization."""

from __future__ import annotations

from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment import operations
from seva_exp.augment.families import RandomlyApplied


class RandomSolarize(RandomlyApplied):
    """Bright values inverted, with a probability.

    Parameters of SeVa's released code, first version; torchvision's RandomSolarize.
    """

    kind: Literal["random_solarize"] = "random_solarize"
    threshold: int = Field(
        128, ge=0, le=255, description="values at or above this are inverted; SeVa: 128"
    )

    def change(self, x: Image.Image) -> Image.Image:
        return operations.solarize(x, self.threshold)
