"""PaliGemma and PaliGemma 2."""

from __future__ import annotations

from typing import Any

from seva_exp.core.interfaces import EncodedImage
from seva_exp.models.family import Attention, Family, VisionModules, square
from seva_exp.models.pixels import Tiles


class PaliGemma(Family):
    """Not a chat model: picture, begin-of-sequence token, prompt, newline, answer. Prompts of the
    ``mix`` checkpoints begin with a task (``answer en ...``, ``caption en``). All of a prompt sees
    all of it."""

    model_types = ("paligemma",)
    proven = ("gemma2",)
    needs_template = False
    pixels = Tiles()
    attention = Attention("all", answer_type=1)
    vision = VisionModules(("vision_tower",), "multi_modal_projector")

    def chat_text(self, processor: Any, system: str | None, prompt: str) -> str:
        if processor.chat_template:  # a fine-tuned one that has got a chat template
            return super().chat_text(processor, system, prompt)
        return f"{processor.image_token}{prompt}"

    def text_alone(self, processor: Any, system: str | None, prompt: str) -> str:
        if processor.chat_template:
            return super().text_alone(processor, system, prompt)
        return f"{processor.tokenizer.bos_token}{prompt}\n"

    def grid(self, image: EncodedImage, tokens: int) -> tuple[int, int] | None:
        return square(tokens)

    def written(self, processor: Any, text: str) -> str:
        token = processor.image_token
        behind = text.rfind(token) + len(token)
        return f"{text[:behind]}{processor.tokenizer.bos_token}{text[behind:]}\n"
