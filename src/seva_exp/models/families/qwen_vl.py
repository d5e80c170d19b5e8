"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL."""

from __future__ import annotations

from typing import Any

from seva_exp.core.errors import InputError
from seva_exp.models.families.base import Family


class QwenVl(Family):
    """Pictures at their own size, between two bounds of the processor."""

    def limit(self, processor: Any, max_pixels: int) -> None:
        images = processor.image_processor
        smallest = images.size["shortest_edge"]
        if max_pixels < smallest:
            raise InputError(
                f"model.max_pixels={max_pixels}: this processor makes pictures of fewer than "
                f"{smallest} pixels larger. Take at least {smallest}."
            )
        images.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
