"""The operations of RandAugment and AutoAugment, each with its scale of strengths, as torchvision
defines them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from seva_exp.augment import operations

SHIFT = 150 / 331
"""Largest translation, as a share of the side (150 px of the 331 px of the original paper)."""


@dataclass(frozen=True)
class Operation:
    """``strength(share, side)`` is what ``apply`` takes: ``share`` 0 .. 1 of the strongest,
    ``side`` in pixels. A signed one turns its strength around half of the time."""

    apply: Callable[[Image.Image, float], Image.Image]
    strength: Callable[[float, tuple[int, int]], float] = lambda share, side: 0.0
    signed: bool = False


def _up_to(highest: float) -> Callable[[float, tuple[int, int]], float]:
    return lambda share, side: highest * share


def _factor(scale: Callable[[Image.Image, float], Image.Image]) -> Operation:
    return Operation(lambda x, strength: scale(x, 1.0 + strength), _up_to(0.9), signed=True)


def _plain(change: Callable[[Image.Image], Image.Image]) -> Operation:
    return Operation(lambda x, strength: change(x))


_STILL: operations.Matrix = ((1.0, 0.0), (0.0, 1.0))

OPERATIONS: dict[str, Operation] = {
    "identity": _plain(lambda x: x.copy()),
    "shear_x": Operation(
        lambda x, tan: operations.affine(x, ((1.0, -tan), (0.0, 1.0))), _up_to(0.3), signed=True
    ),
    "shear_y": Operation(
        lambda x, tan: operations.affine(x, ((1.0, 0.0), (-tan, 1.0))), _up_to(0.3), signed=True
    ),
    "translate_x": Operation(
        lambda x, shift: operations.affine(x, _STILL, (int(shift), 0)),
        lambda share, side: SHIFT * side[0] * share,
        signed=True,
    ),
    "translate_y": Operation(
        lambda x, shift: operations.affine(x, _STILL, (0, int(shift))),
        lambda share, side: SHIFT * side[1] * share,
        signed=True,
    ),
    "rotate": Operation(operations.rotate, _up_to(30.0), signed=True),
    "brightness": _factor(operations.scale_brightness),
    "color": _factor(operations.scale_saturation),
    "contrast": _factor(operations.scale_contrast),
    "sharpness": _factor(operations.scale_sharpness),
    "posterize": Operation(
        lambda x, bits: operations.posterize(x, int(bits)),
        lambda share, side: 8.0 - round(4 * share),
    ),
    "solarize": Operation(operations.solarize, lambda share, side: 255.0 * (1.0 - share)),
    "autocontrast": _plain(operations.autocontrast),
    "equalize": _plain(operations.equalize),
    "invert": _plain(operations.invert),
}
"""Shears are in tangents, shifts in pixels, rotations in degrees counter-clockwise."""


def apply(image: Image.Image, name: str, share: float, rng: random.Random) -> Image.Image:
    """The operation at ``share`` of its full strength, in a random direction if it has two."""
    operation = OPERATIONS[name]
    strength = operation.strength(share, image.size)
    if operation.signed and rng.random() < 0.5:
        strength = -strength
    return operation.apply(image, strength)
