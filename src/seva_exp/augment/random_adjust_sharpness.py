"""SeVa's random change of sharpness."""

from __future__ import annotations

from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment import operations
from seva_exp.augment.families import RandomlyApplied


class RandomAdjustSharpness(RandomlyApplied):
    """Smoothed or sharpened, with a probability.

    Parameters of SeVa's released code, first version; torchvision's RandomAdjustSharpness.
    """

    kind: Literal["random_adjust_sharpness"] = "random_adjust_sharpness"
    factor: float = Field(
        0.0, ge=0, le=100, description="0 smooths, 1 keeps, more sharpens; SeVa: 0"
    )

    def change(self, x: Image.Image) -> Image.Image:
        return operations.scale_sharpness(x, self.factor)
