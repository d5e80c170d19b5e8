"""A harder negative: the picture mixed with another one of the data set."""

from __future__ import annotations

import math
import random
from typing import ClassVar, Literal

from PIL import Image, ImageOps
from pydantic import Field, model_validator

from seva_exp.augment.base import ImageAugmentation
from seva_exp.augment.ranges import check_range


class Blend(ImageAugmentation):
    """MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899) with another picture of the data set,
    as a negative of our own: objects of the other picture are really seen, and are wrong.

    mixup: the partner shines through everywhere. cutmix: a random box, of the picture's own
    proportions and wholly inside it, shows the partner (the original box may be cut by the edge).
    The partner is scaled and cropped to the picture's size.
    """

    partners: ClassVar[int] = 1
    kind: Literal["blend"] = "blend"
    mode: Literal["mixup", "cutmix"] = Field("mixup", description="how the two are mixed")
    share_min: float = Field(
        0.3, ge=0, le=1, description="smallest share of the partner: its weight or its area"
    )
    share_max: float = Field(
        0.5, ge=0, le=1, description="largest share of the partner: its weight or its area"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Blend:
        check_range(self, "share_min", "share_max")
        return self

    @property
    def strength(self) -> float:
        """The partner's share, on average."""
        return (self.share_min + self.share_max) / 2

    def __call__(self, x: Image.Image, rng: random.Random, *partners: Image.Image) -> Image.Image:
        """RGB in, RGB of the same size out; one partner of any size."""
        (partner,) = partners
        other = ImageOps.fit(partner, x.size)
        share = rng.uniform(self.share_min, self.share_max)
        if self.mode == "mixup":
            return Image.blend(x, other, share)
        width, height = (round(side * math.sqrt(share)) for side in x.size)
        left, top = rng.randint(0, x.width - width), rng.randint(0, x.height - height)
        out = x.copy()
        out.paste(other.crop((left, top, left + width, top + height)), (left, top))
        return out
