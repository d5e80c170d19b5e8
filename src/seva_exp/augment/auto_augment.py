"""SeVa's AutoAugment."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image

from seva_exp.augment import policies
from seva_exp.augment.base import ImageAugmentation

Rule = tuple[str, float, int]
"""An operation, its probability, and its level (0 .. 9; of no meaning where nothing scales)."""
LEVELS = 10

IMAGENET: tuple[tuple[Rule, Rule], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)
"""The policy found on ImageNet (arXiv:1805.09501, table 9)."""


class AutoAugment(ImageAugmentation):
    """One of the 25 learned pairs of operations of the ImageNet policy.

    AutoAugment (arXiv:1805.09501) with torchvision's defaults, as SeVa's released code, first
    version, took it. What is outside the picture is black; some pictures stay as they are.
    """

    kind: Literal["auto_augment"] = "auto_augment"

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        image = x.copy()
        for name, probability, level in rng.choice(IMAGENET):
            if rng.random() < probability:
                image = policies.apply(image, name, level / (LEVELS - 1), rng)
        return image
