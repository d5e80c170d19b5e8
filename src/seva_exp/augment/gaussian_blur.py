"""SeVa's Gaussian blur."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field, model_validator

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation
from seva_exp.augment.ranges import check_range


class GaussianBlur(ImageAugmentation):
    """A blur of random strength, at the picture's own resolution (SeVa's released code, first
    version)."""

    kind: Literal["gaussian_blur"] = "gaussian_blur"
    radius_min: float = Field(
        0.1, ge=0, le=100, description="smallest standard deviation, px; SeVa: 0.1"
    )
    radius_max: float = Field(
        2.0, ge=0, le=100, description="largest standard deviation, px; SeVa: 2"
    )

    @model_validator(mode="after")
    def _ordered(self) -> GaussianBlur:
        check_range(self, "radius_min", "radius_max")
        return self

    @property
    def strength(self) -> float:
        """The standard deviation, on average."""
        return (self.radius_min + self.radius_max) / 2

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        return operations.blur(x, rng.uniform(self.radius_min, self.radius_max))
