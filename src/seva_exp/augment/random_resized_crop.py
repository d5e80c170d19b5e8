"""SeVa's random resized crop."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation
from seva_exp.augment.ranges import check_range

if TYPE_CHECKING:
    from PIL import Image


class RandomResizedCrop(ImageAugmentation):
    """A random part of the picture, scaled to a square.

    Parameters of SeVa's released code, first version.
    """

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    size: int = Field(224, ge=4, le=4096, description="side of the result, px; SeVa: 224")
    scale_min: float = Field(
        0.36, gt=0, le=1, description="smallest share of the area that is kept; SeVa: 0.36"
    )
    scale_max: float = Field(
        0.64, gt=0, le=1, description="largest share of the area that is kept; SeVa: 0.64"
    )
    ratio_min: float = Field(
        3 / 4, gt=0, le=100, description="smallest width/height of the crop; torchvision: 3/4"
    )
    ratio_max: float = Field(
        4 / 3, gt=0, le=100, description="largest width/height of the crop; torchvision: 4/3"
    )

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        check_range(self, "scale_min", "scale_max")
        check_range(self, "ratio_min", "ratio_max")
        return self

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB of any size in, RGB of ``size`` x ``size`` px out."""
        scale, ratio = (self.scale_min, self.scale_max), (self.ratio_min, self.ratio_max)
        box = operations.draw_crop(rng, x.width, x.height, scale, ratio)
        return operations.resized_crop(x, box, self.size)
