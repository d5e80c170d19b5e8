"""SeVa's BYOL view."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seva_exp.augment.families import Contrastive


class Byol(Contrastive):
    """As ``moco``, with crops of down to 8 % of the picture.

    Parameters of SeVa's released code, first version. Unlike in BYOL (arXiv:2006.07733) jitter and
    blur are always applied, and nothing is solarized.
    """

    kind: Literal["byol"] = "byol"
    scale_min: float = Field(
        0.08, gt=0, le=1, description="smallest share of the area that is kept; SeVa: 0.08"
    )
