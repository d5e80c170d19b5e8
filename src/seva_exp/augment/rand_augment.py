"""SeVa's RandAugment."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field, model_validator

from seva_exp.augment import policies
from seva_exp.augment.base import ImageAugmentation

NAMES = tuple(name for name in policies.OPERATIONS if name != "invert")
"""The 14 operations of RandAugment."""


class RandAugment(ImageAugmentation):
    """A few operations drawn from fourteen, all at one strength.

    RandAugment (arXiv:1909.13719) with torchvision's defaults, as SeVa's released code, first
    version, took it. What is outside the picture is black.
    """

    kind: Literal["rand_augment"] = "rand_augment"
    operations: int = Field(
        2, ge=1, le=100, description="how many, one after the other; torchvision: 2"
    )
    magnitude: int = Field(9, ge=0, le=1000, description="strength, 0 .. bins - 1; torchvision: 9")
    bins: int = Field(31, ge=2, le=1001, description="number of strengths; torchvision: 31")

    @model_validator(mode="after")
    def _within(self) -> RandAugment:
        if self.magnitude >= self.bins:
            raise ValueError(f"magnitude: {self.magnitude} is not below bins, which is {self.bins}")
        return self

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        share = self.magnitude / (self.bins - 1)
        image = x.copy()
        for _ in range(self.operations):
            image = policies.apply(image, rng.choice(NAMES), share, rng)
        return image
