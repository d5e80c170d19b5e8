"""InternVL (checkpoints of transformers' own layout, ``-hf``)."""

from __future__ import annotations

from seva_exp.core.interfaces import EncodedImage
from seva_exp.models.family import Family, VisionModules, square
from seva_exp.models.pixels import Tiles


class InternVl(Family):
    """Tiles [T, 3, H, W], and behind them the whole picture, if there are several."""

    model_types = ("internvl",)
    pictures = ((13, 3330),)
    proven = ("qwen2",)
    pixels = Tiles(whole=-1)
    vision = VisionModules(("vision_tower",), "multi_modal_projector")

    def grid(self, image: EncodedImage, tokens: int) -> tuple[int, int] | None:
        return square(tokens) if len(image.pixels["pixel_values"]) == 1 else None
