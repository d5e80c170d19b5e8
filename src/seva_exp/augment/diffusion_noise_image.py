"""SeVa's diffusion noise on the picture itself, for a model that is asked over a network."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image, ImageOps
from pydantic import Field

from seva_exp.augment.base import ImageAugmentation
from seva_exp.augment.diffusion_noise import STEPS, DiffusionNoise

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class DiffusionNoiseImage(ImageAugmentation):
    """The noise of ``diffusion_noise`` made visible: the picture on a square of CLIP's mean colour,
    scaled to the model's resolution (bicubic), normalised as CLIP does, noised, and turned back
    into a picture.

    It is another view: what the noise moves below 0 or above 255 is clipped, and the rest rounded
    to whole numbers. A ``size`` that is not the model's own is resized by its processor, which
    smooths the noise.
    """

    kind: Literal["diffusion_noise_image"] = "diffusion_noise_image"
    step: int = Field(
        500,
        ge=0,
        le=STEPS - 1,
        description="time step t, 0 (almost clean) .. 999; SeVa: 500, and 800 for a second set",
    )
    size: int = Field(
        336, ge=1, le=4096, description="side of the picture, px: the model's resolution"
    )

    @property
    def strength(self) -> float:
        """The time step."""
        return float(self.step)

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB in, RGB of ``size`` x ``size`` out."""
        import numpy as np
        import torch

        mean, std = (torch.tensor(values) for values in (CLIP_MEAN, CLIP_STD))
        side = max(x.size)
        square = ImageOps.pad(x, (side, side), color=tuple(int(255 * v) for v in CLIP_MEAN))
        scaled = square.resize((self.size, self.size), Image.Resampling.BICUBIC)
        clean_HWC = (torch.from_numpy(np.array(scaled)) / 255 - mean) / std
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        noised_HWC = DiffusionNoise(step=self.step)(clean_HWC, generator) * std + mean
        return Image.fromarray((noised_HWC.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
