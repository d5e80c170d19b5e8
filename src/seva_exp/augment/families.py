"""What several views share: parameters, and how they are applied."""

from __future__ import annotations

import random
from abc import abstractmethod

from PIL import Image
from pydantic import Field, model_validator

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation
from seva_exp.augment.ranges import check_range


class RandomlyApplied(ImageAugmentation):
    """A change that comes with a probability and is otherwise not random, as torchvision's
    ``Random...`` transforms are.

    A picture that is not changed gives the clean answer again; that pair is then filtered out.
    """

    probability: float = Field(0.5, ge=0, le=1, description="of the change; torchvision: 0.5")

    @abstractmethod
    def change(self, x: Image.Image) -> Image.Image:
        """The change itself: RGB in, RGB of the same size out."""

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        return self.change(x) if rng.random() < self.probability else x.copy()


class ResizedCrop(ImageAugmentation):
    """A random part of the picture, scaled to a square (torchvision's RandomResizedCrop)."""

    size: int = Field(224, ge=4, le=4096, description="side of the result, px; SeVa: 224")
    scale_min: float = Field(
        0.2, gt=0, le=1, description="smallest share of the area that is kept; SeVa: 0.2"
    )
    scale_max: float = Field(
        1.0, gt=0, le=1, description="largest share of the area that is kept; SeVa: 1"
    )
    ratio_min: float = Field(
        3 / 4, gt=0, le=100, description="smallest width/height of the crop; torchvision: 3/4"
    )
    ratio_max: float = Field(
        4 / 3, gt=0, le=100, description="largest width/height of the crop; torchvision: 4/3"
    )

    @model_validator(mode="after")
    def _crop_ordered(self) -> ResizedCrop:
        check_range(self, "scale_min", "scale_max")
        check_range(self, "ratio_min", "ratio_max")
        return self

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB of any size in, RGB of ``size`` x ``size`` px out."""
        scale, ratio = (self.scale_min, self.scale_max), (self.ratio_min, self.ratio_max)
        box = operations.draw_crop(rng, x.width, x.height, scale, ratio)
        return operations.resized_crop(x, box, self.size)


class Contrastive(ResizedCrop):
    """The views of contrastive learning: random resized crop, flip, color jitter, gray, blur.

    Defaults are SeVa's for MoCo; BYOL and SimCLR differ in a few of them.
    """

    flip_probability: float = Field(0.5, ge=0, le=1, description="of a mirror image; SeVa: 0.5")
    jitter_probability: float = Field(
        1.0, ge=0, le=1, description="of color jitter; SeVa: 1, the original papers: 0.8"
    )
    brightness: float = Field(0.4, ge=0, le=10, description="factor 1 +- this; SeVa: 0.4")
    contrast: float = Field(0.4, ge=0, le=10, description="factor 1 +- this; SeVa: 0.4")
    saturation: float = Field(0.4, ge=0, le=10, description="factor 1 +- this; SeVa: 0.4")
    hue: float = Field(0.1, ge=0, le=0.5, description="shift of +- this, in turns; SeVa: 0.1")
    gray_probability: float = Field(0.2, ge=0, le=1, description="of losing color; SeVa: 0.2")
    blur_probability: float = Field(
        1.0, ge=0, le=1, description="of a blur; SeVa: 1, MoCo v2 and SimCLR: 0.5"
    )
    radius_min: float = Field(
        0.1, ge=0, le=100, description="smallest blur, standard deviation in px; SeVa: 0.1"
    )
    radius_max: float = Field(
        2.0, ge=0, le=100, description="largest blur, standard deviation in px; SeVa: 2"
    )

    @model_validator(mode="after")
    def _blur_ordered(self) -> Contrastive:
        check_range(self, "radius_min", "radius_max")
        return self

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        image = super().__call__(x, rng)
        if rng.random() < self.flip_probability:
            image = operations.flip(image)
        if rng.random() < self.jitter_probability:
            strengths = (self.brightness, self.contrast, self.saturation, self.hue)
            image = operations.jitter(image, operations.draw_jitter(rng, *strengths))
        if rng.random() < self.gray_probability:
            image = operations.to_gray(image)
        if rng.random() < self.blur_probability:
            image = operations.blur(image, rng.uniform(self.radius_min, self.radius_max))
        return image
