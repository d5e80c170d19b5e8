"""LLaVA-1.5 and LLaVA-NeXT."""

from __future__ import annotations

from typing import Any

from seva_exp.models.families.base import Family


class Llava(Family):
    """Older checkpoints have no ``processor_config.json``: how many tokens a picture takes is then
    read from the model's config."""

    def settle(self, processor: Any, config: Any) -> None:
        if processor.patch_size is None:
            vision = config.vision_config
            processor.patch_size = vision.patch_size
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
            clip = vision.model_type == "clip_vision_model"  # has a class token, SigLIP has none
            processor.num_additional_image_tokens = int(clip)
