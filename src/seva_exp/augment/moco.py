"""SeVa's MoCo view."""

from __future__ import annotations

from typing import Literal

from seva_exp.augment.families import Contrastive


class Moco(Contrastive):
    """Random resized crop, flip, color jitter, gray, Gaussian blur.

    Parameters of SeVa's released code, first version (its MOCO model). Unlike in MoCo v2
    (arXiv:2003.04297) color jitter and blur are always applied.
    """

    kind: Literal["moco"] = "moco"
