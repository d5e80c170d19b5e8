"""STIC's color jitter."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment import operations
from seva_exp.augment.base import ImageAugmentation


class ColorJitter(ImageAugmentation):
    """Random changes of brightness, contrast, saturation and hue, in random order.

    One of the two image corruptions of STIC's algorithm 1; the strengths are those of its
    released code.
    """

    kind: Literal["color_jitter"] = "color_jitter"
    brightness: float = Field(
        0.5, ge=0, le=10, description="factor from U(max(0, 1-b), 1+b); STIC: 0.5, SeVa: 0.4"
    )
    contrast: float = Field(
        0.0, ge=0, le=10, description="factor from U(max(0, 1-c), 1+c); STIC: 0, SeVa: 0.4"
    )
    saturation: float = Field(
        0.0, ge=0, le=10, description="factor from U(max(0, 1-s), 1+s); STIC: 0, SeVa: 0.4"
    )
    hue: float = Field(
        0.3, ge=0, le=0.5, description="shift from U(-h, h), in turns; STIC: 0.3, SeVa: 0.1"
    )

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        return operations.jitter(x, operations.draw_jitter(rng, *strengths))
