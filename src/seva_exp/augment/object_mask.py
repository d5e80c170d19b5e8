"""A harder negative: parts of an object's size hidden."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image, ImageDraw, ImageStat
from pydantic import Field, model_validator

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation
from seva_exp.augment.ranges import check_range

BLUR = 0.25
"""Standard deviation of the blur, as a share of the part's shorter side."""
FRAME = 0.25
"""Width of the frame whose mean color is taken, as a share of the part's side."""


class ObjectMask(ImageAugmentation):
    """One or several parts of about an object's size, painted over.

    Ours: what is hidden leaves no sharp trace (it takes the color around it, or is blurred), so
    that the answer must guess what is there, which is where objects are hallucinated.
    """

    kind: Literal["object_mask"] = "object_mask"
    shape: Literal["ellipse", "rectangle"] = Field("ellipse", description="of a hidden part")
    fill: Literal["mean", "blur"] = Field(
        "mean", description="mean: the mean color around the part; blur: the part itself, blurred"
    )
    count_min: int = Field(1, ge=1, le=100, description="fewest parts")
    count_max: int = Field(3, ge=1, le=100, description="most parts")
    area_min: float = Field(
        0.05, gt=0, le=0.9, description="smallest part: its box's share of the picture's area"
    )
    area_max: float = Field(
        0.2, gt=0, le=0.9, description="largest part: its box's share of the picture's area"
    )
    ratio_min: float = Field(0.5, gt=0, le=100, description="smallest width/height of a part")
    ratio_max: float = Field(2.0, gt=0, le=100, description="largest width/height of a part")

    @model_validator(mode="after")
    def _ordered(self) -> ObjectMask:
        check_range(self, "count_min", "count_max")
        check_range(self, "area_min", "area_max")
        check_range(self, "ratio_min", "ratio_max")
        return self

    @property
    def strength(self) -> float:
        """The area that is hidden, on average."""
        return (self.area_min + self.area_max) * (self.count_min + self.count_max) / 4

    def draw(self, rng: random.Random, width: int, height: int) -> list[operations.Box]:
        """The boxes of the hidden parts, in pixels."""
        area, ratio = (self.area_min, self.area_max), (self.ratio_min, self.ratio_max)
        count = rng.randint(self.count_min, self.count_max)
        return [operations.draw_crop(rng, width, height, area, ratio) for _ in range(count)]

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        out = x.copy()
        for box in self.draw(rng, x.width, x.height):
            self._hide(out, box)
        return out

    def _hide(self, image: Image.Image, box: operations.Box) -> None:
        """Paint over the part in ``box``, in place."""
        width, height = box[2] - box[0], box[3] - box[1]
        mask = self._mask(width, height)
        if self.fill == "blur":
            radius = BLUR * min(width, height)
            around = _grown(box, 2 * radius, 2 * radius, image.size)
            blurred = operations.blur(image.crop(around), radius)
            part = blurred.crop(_within(box, around))
            image.paste(part, box[:2], mask)
        else:
            image.paste(_color_around(image, box, mask), box, mask)

    def _mask(self, width: int, height: int) -> Image.Image:
        """White where the part is; mode L."""
        if self.shape == "rectangle":
            return Image.new("L", (width, height), 255)
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).ellipse((0, 0, width - 1, height - 1), fill=255)
        return mask


def _grown(box: operations.Box, x: float, y: float, size: tuple[int, int]) -> operations.Box:
    """The box with ``x`` px more on the left and right and ``y`` above and below, inside ``size``;
    at least one pixel more."""
    dx, dy = max(1, round(x)), max(1, round(y))
    left, top, right, bottom = box
    return max(0, left - dx), max(0, top - dy), min(size[0], right + dx), min(size[1], bottom + dy)


def _within(box: operations.Box, outer: operations.Box) -> operations.Box:
    """``box`` in the coordinates of ``outer``."""
    left, top = outer[:2]
    return box[0] - left, box[1] - top, box[2] - left, box[3] - top


def _color_around(
    image: Image.Image, box: operations.Box, mask: Image.Image
) -> tuple[int, int, int]:
    """The mean color of a frame around the part; of the part itself where there is no frame."""
    outer = _grown(box, FRAME * mask.width, FRAME * mask.height, image.size)
    around = Image.new("L", (outer[2] - outer[0], outer[3] - outer[1]), 255)
    around.paste(0, _within(box, outer), mask)
    nothing = around.getextrema() == (0, 0)
    mean = ImageStat.Stat(image.crop(outer), None if nothing else around).mean
    return round(mean[0]), round(mean[1]), round(mean[2])
