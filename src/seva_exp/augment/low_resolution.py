"""STIC's low resolution."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment.base import ImageAugmentation


class LowResolution(ImageAugmentation):
    """The picture shrunk (bilinear, antialiased) and enlarged again (bicubic): details are lost.

    One of the two image corruptions of STIC's algorithm 1; the size is that of its released code,
    which leaves the enlarging to the processor. A picture whose shorter side is no longer than
    ``side`` stays as it is. Nothing is random.
    """

    kind: Literal["low_resolution"] = "low_resolution"
    side: int = Field(
        20, ge=1, le=4096, description="the shorter side of the shrunk picture, px; STIC: 20"
    )

    @property
    def strength(self) -> float:
        """The smaller the side, the more is lost."""
        return -float(self.side)

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        share = self.side / min(x.size)
        if share >= 1:
            return x.copy()
        shrunk = (max(1, round(x.width * share)), max(1, round(x.height * share)))
        small = x.resize(shrunk, Image.Resampling.BILINEAR)
        return small.resize(x.size, Image.Resampling.BICUBIC)
