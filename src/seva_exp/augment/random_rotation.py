"""SeVa's random rotation."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field, model_validator

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation
from seva_exp.augment.ranges import check_range


class RandomRotation(ImageAugmentation):
    """The picture turned about its center, in its own frame; what is outside is black.

    Parameters of SeVa's released code, first version; torchvision's RandomRotation (nearest pixel).
    """

    kind: Literal["random_rotation"] = "random_rotation"
    degrees_min: float = Field(
        0.0, ge=-360, le=360, description="smallest angle, counter-clockwise, degrees; SeVa: 0"
    )
    degrees_max: float = Field(
        180.0, ge=-360, le=360, description="largest angle, counter-clockwise, degrees; SeVa: 180"
    )

    @model_validator(mode="after")
    def _ordered(self) -> RandomRotation:
        check_range(self, "degrees_min", "degrees_max")
        return self

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        return operations.rotate(x, rng.uniform(self.degrees_min, self.degrees_max))
