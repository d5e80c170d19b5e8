"""Idefics3 and its line: SmolVLM, SmolVLM2."""

from __future__ import annotations

from typing import Any

from seva_exp.models.family import Family, VisionModules
from seva_exp.models.pixels import Tiles


class Idefics(Family):
    """Tiles, and behind them the whole picture; turns end in a token of their own."""

    model_types = ("idefics3", "smolvlm")
    pictures = ((13, 2250), (13, 1110))
    proven = ("llama",)
    pixels = Tiles(whole=-1)
    vision = VisionModules(("vision_model",), "connector")

    def end_token(self, processor: Any) -> str:
        return processor.end_of_utterance_token
