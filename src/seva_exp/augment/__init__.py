"""Augmentations: the bad ways to ask, one module each. A new one adds its line to the union."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from seva_exp.augment.base import (
    Augmentation,
    ImageAugmentation,
    PixelAugmentation,
    PromptAugmentation,
)
from seva_exp.augment.color_jitter import ColorJitter
from seva_exp.augment.diffusion_noise import DiffusionNoise
from seva_exp.augment.gaussian_blur import GaussianBlur
from seva_exp.augment.horizontal_flip import HorizontalFlip
from seva_exp.augment.low_resolution import LowResolution
from seva_exp.augment.moco import Moco
from seva_exp.augment.random_perspective import RandomPerspective
from seva_exp.augment.random_resized_crop import RandomResizedCrop

_Union = (
    ColorJitter
    | DiffusionNoise
    | GaussianBlur
    | HorizontalFlip
    | LowResolution
    | Moco
    | RandomPerspective
    | RandomResizedCrop
)

AnyAugmentation = Annotated[_Union, Field(discriminator="kind")]
"""The field type of a config that holds an augmentation."""
AUGMENTATIONS: dict[str, type[Augmentation]] = {
    cls.model_fields["kind"].default: cls for cls in get_args(_Union)
}
"""kind -> class."""

__all__ = [
    "AUGMENTATIONS",
    "AnyAugmentation",
    "Augmentation",
    "ColorJitter",
    "DiffusionNoise",
    "GaussianBlur",
    "HorizontalFlip",
    "ImageAugmentation",
    "LowResolution",
    "Moco",
    "PixelAugmentation",
    "PromptAugmentation",
    "RandomPerspective",
    "RandomResizedCrop",
]
