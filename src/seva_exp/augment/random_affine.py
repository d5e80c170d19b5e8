"""SeVa's random affine map."""

from __future__ import annotations

import math
import random
from typing import Literal

from PIL import Image
from pydantic import Field, model_validator

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation
from seva_exp.augment.ranges import check_range


class RandomAffine(ImageAugmentation):
    """The picture turned, shrunk and shifted in its own frame; what is outside is black.

    Parameters of SeVa's released code, first version; torchvision's RandomAffine (nearest pixel).
    There ``translate`` is the largest shift in x and in y, not a range.
    """

    kind: Literal["random_affine"] = "random_affine"
    degrees_min: float = Field(
        30.0, ge=-360, le=360, description="smallest angle, clockwise, degrees; SeVa: 30"
    )
    degrees_max: float = Field(
        70.0, ge=-360, le=360, description="largest angle, clockwise, degrees; SeVa: 70"
    )
    translate_x: float = Field(
        0.1, ge=0, le=1, description="shift of up to +- this share of the width; SeVa: 0.1"
    )
    translate_y: float = Field(
        0.3, ge=0, le=1, description="shift of up to +- this share of the height; SeVa: 0.3"
    )
    scale_min: float = Field(0.5, gt=0, le=10, description="smallest zoom; SeVa: 0.5")
    scale_max: float = Field(0.75, gt=0, le=10, description="largest zoom; SeVa: 0.75")

    @model_validator(mode="after")
    def _ordered(self) -> RandomAffine:
        check_range(self, "degrees_min", "degrees_max")
        check_range(self, "scale_min", "scale_max")
        return self

    def draw(
        self, rng: random.Random, width: int, height: int
    ) -> tuple[float, tuple[int, int], float]:
        """Angle in degrees (clockwise), shift in whole pixels, zoom."""
        degrees = rng.uniform(self.degrees_min, self.degrees_max)
        reach_x, reach_y = self.translate_x * width, self.translate_y * height
        shift = round(rng.uniform(-reach_x, reach_x)), round(rng.uniform(-reach_y, reach_y))
        return degrees, shift, rng.uniform(self.scale_min, self.scale_max)

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        degrees, shift, scale = self.draw(rng, x.width, x.height)
        cos, sin = (scale * f(math.radians(degrees)) for f in (math.cos, math.sin))
        center = (x.width / 2, x.height / 2)
        return operations.affine(x, ((cos, -sin), (sin, cos)), shift, center)
