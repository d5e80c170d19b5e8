"""Gemma 3."""

from __future__ import annotations

from typing import Any

from seva_exp.core.interfaces import EncodedImage
from seva_exp.models.family import Attention, Family, VisionModules, square
from seva_exp.models.pixels import Tiles


class Gemma3(Family):
    """The prompt's image token marks where a picture begins; other tokens become its features, and
    newlines around them melt into those of the prompt. Pan-and-scan is off, as the processor has
    it. A picture's tokens see each other, within a layer's sliding window."""

    model_types = ("gemma3",)
    pictures = ((1, 256),)
    proven = ("gemma3_text",)
    pixels = Tiles()
    attention = Attention("images", window_over_blocks=True)
    vision = VisionModules(("vision_tower",), "multi_modal_projector")

    def grid(self, image: EncodedImage, tokens: int) -> tuple[int, int] | None:
        return square(tokens)

    def written(self, processor: Any, text: str) -> str:
        begin, end = processor.tokenizer.boi_token, processor.tokenizer.eoi_token
        picture = f"\n\n{begin}{self.image_token(processor)}{end}\n\n"
        return text.replace(begin, picture)

    def image_token(self, processor: Any) -> str:
        return processor.tokenizer.image_token

    def end_token(self, processor: Any) -> str:
        return "<end_of_turn>"
