"""Augmentations: the bad ways to ask, one module each. A new one adds its line to the union."""

from __future__ import annotations

from typing import Annotated

from seva_exp.augment.auto_augment import AutoAugment
from seva_exp.augment.bad_prompt import BadPrompt
from seva_exp.augment.base import (
    Augmentation,
    ImageAugmentation,
    PixelAugmentation,
    PromptAugmentation,
)
from seva_exp.augment.blend import Blend
from seva_exp.augment.byol import Byol
from seva_exp.augment.center_crop import CenterCrop
from seva_exp.augment.color_jitter import ColorJitter
from seva_exp.augment.diffusion_noise import DiffusionNoise
from seva_exp.augment.diffusion_noise_image import DiffusionNoiseImage
from seva_exp.augment.gaussian_blur import GaussianBlur
from seva_exp.augment.grayscale import Grayscale
from seva_exp.augment.horizontal_flip import HorizontalFlip
from seva_exp.augment.low_resolution import LowResolution
from seva_exp.augment.moco import Moco
from seva_exp.augment.object_mask import ObjectMask
from seva_exp.augment.pad import Pad
from seva_exp.augment.patch_shuffle import PatchShuffle
from seva_exp.augment.plain_prompt import PlainPrompt
from seva_exp.augment.rand_augment import RandAugment
from seva_exp.augment.random_adjust_sharpness import RandomAdjustSharpness
from seva_exp.augment.random_affine import RandomAffine
from seva_exp.augment.random_autocontrast import RandomAutocontrast
from seva_exp.augment.random_crop import RandomCrop
from seva_exp.augment.random_equalize import RandomEqualize
from seva_exp.augment.random_invert import RandomInvert
from seva_exp.augment.random_perspective import RandomPerspective
from seva_exp.augment.random_posterize import RandomPosterize
from seva_exp.augment.random_resized_crop import RandomResizedCrop
from seva_exp.augment.random_rotation import RandomRotation
from seva_exp.augment.random_solarize import RandomSolarize
from seva_exp.augment.simclr import Simclr
from seva_exp.core.spec import BY_KIND, by_kind

_Union = (
    AutoAugment
    | BadPrompt
    | Blend
    | Byol
    | CenterCrop
    | ColorJitter
    | DiffusionNoise
    | DiffusionNoiseImage
    | GaussianBlur
    | Grayscale
    | HorizontalFlip
    | LowResolution
    | Moco
    | ObjectMask
    | Pad
    | PatchShuffle
    | PlainPrompt
    | RandAugment
    | RandomAdjustSharpness
    | RandomAffine
    | RandomAutocontrast
    | RandomCrop
    | RandomEqualize
    | RandomInvert
    | RandomPerspective
    | RandomPosterize
    | RandomResizedCrop
    | RandomRotation
    | RandomSolarize
    | Simclr
)

AnyAugmentation = Annotated[_Union, BY_KIND]
"""The field type of a config that holds an augmentation."""
AUGMENTATIONS: dict[str, type[Augmentation]] = by_kind(_Union)
"""kind -> class."""
