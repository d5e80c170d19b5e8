"""InternVL (checkpoints of transformers' own layout, ``-hf``)."""

from __future__ import annotations

from seva_exp.models.families.base import Family


class InternVl(Family):
    """Tiles [T, 3, H, W], and behind them the whole picture, if there are several."""

    whole = -1
