"""SeVa's random resized crop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seva_exp.augment.families import ResizedCrop


class RandomResizedCrop(ResizedCrop):
    """A random part of the picture, scaled to a square.

    Parameters of SeVa's released code, first version.
    """

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    scale_min: float = Field(
        0.36, gt=0, le=1, description="smallest share of the area that is kept; SeVa: 0.36"
    )
    scale_max: float = Field(
        0.64, gt=0, le=1, description="largest share of the area that is kept; SeVa: 0.64"
    )
