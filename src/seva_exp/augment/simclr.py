"""SeVa's SimCLR view."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seva_exp.augment.families import Contrastive


class Simclr(Contrastive):
    """As ``moco``, with a stronger change of hue and no blur.

    Parameters of SeVa's released code, first version. Unlike in SimCLR (arXiv:2002.05709) color
    jitter is always applied.
    """

    kind: Literal["simclr"] = "simclr"
    hue: float = Field(0.4, ge=0, le=0.5, description="shift of +- this, in turns; SeVa: 0.4")
    blur_probability: float = Field(
        0.0, ge=0, le=1, description="of a blur; SeVa: 0, the original paper: 0.5"
    )
