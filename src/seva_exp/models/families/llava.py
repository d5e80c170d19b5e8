"""LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision."""

from __future__ import annotations

from typing import Any

from seva_exp.core.interfaces import EncodedImage
from seva_exp.models.family import Family, VisionModules, square
from seva_exp.models.pixels import Tiles

PARTS = ("vision_tower",), "multi_modal_projector"


class LlavaNext(Family):
    """Tiles [1, T, 3, H, W], the whole picture in the first. Older checkpoints have no
    ``processor_config.json``: how many tokens a picture takes is then read from the model's
    config."""

    model_types = ("llava_next",)
    pictures: tuple[tuple[int, int | None], ...] = ((5, 2340),)
    proven = ("llama", "mistral")
    pixels = Tiles()
    vision = VisionModules(*PARTS)

    def settle(self, processor: Any, config: Any) -> None:
        if processor.patch_size is None:
            vision = config.vision_config
            processor.patch_size = vision.patch_size
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
            clip = vision.model_type == "clip_vision_model"  # has a class token, SigLIP has none
            processor.num_additional_image_tokens = int(clip)


class Llava(LlavaNext):
    """LLaVA-1.5: one picture [1, 3, H, W] of one size."""

    model_types = ("llava",)
    pictures = ((1, None),)
    vision = VisionModules(*PARTS, one_block=True)

    def grid(self, image: EncodedImage, tokens: int) -> tuple[int, int] | None:
        return square(tokens)


class LlavaOnevision(Family):
    """Tiles as LLaVA-NeXT's; its checkpoints lack nothing."""

    model_types = ("llava_onevision",)
    pictures = ((5, 2929),)
    proven = ("qwen2",)
    pixels = Tiles()
    vision = VisionModules(*PARTS)
