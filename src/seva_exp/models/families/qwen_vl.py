"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any

from seva_exp.core.errors import InputError
from seva_exp.core.interfaces import Encoded, EncodedImage
from seva_exp.models.family import Family, VisionModules
from seva_exp.models.pixels import Patches

if TYPE_CHECKING:
    import torch

AXES = 3


class Qwen2Vl(Family):
    """Pictures at their own size, between two bounds of the processor, as a list of patches; the
    tower merges neighbouring ones. Positions have three axes: time, height, width."""

    model_types: tuple[str, ...] = ("qwen2_vl",)
    pictures: tuple[tuple[int, int | None], ...] = ((1, 391),)
    pixels = Patches()
    vision = VisionModules(("visual",), r"visual\.(merger|deepstack_merger_list\.\d+)", apart=False)

    def limit(self, processor: Any, max_pixels: int) -> None:
        images = processor.image_processor
        smallest = images.size["shortest_edge"]
        if max_pixels < smallest:
            raise InputError(
                f"model.max_pixels={max_pixels}: this processor makes pictures of fewer than "
                f"{smallest} pixels larger. Take at least {smallest}."
            )
        images.size = {"shortest_edge": smallest, "longest_edge": max_pixels}

    def grid(self, image: EncodedImage, tokens: int) -> tuple[int, int] | None:
        times, rows, columns = image.pixels["image_grid_thw"][0].tolist()
        merged = isqrt(times * rows * columns // tokens)  # patches of a token, along a side
        return rows // merged, columns // merged

    def positions(self, model: Any, encoded: Encoded) -> torch.Tensor:
        import torch

        if not encoded.image.pixels:  # a prompt alone
            return torch.arange(len(encoded.ids)).expand(AXES, -1)
        types = torch.tensor([encoded.types["mm_token_type_ids"]])
        grid = encoded.image.pixels["image_grid_thw"].cpu()
        found, _ = model.base_model.get_rope_index(
            torch.tensor([encoded.ids]), mm_token_type_ids=types, image_grid_thw=grid
        )
        return found[:, 0]


class QwenVl(Qwen2Vl):
    """Qwen2.5-VL and Qwen3-VL."""

    model_types = ("qwen2_5_vl", "qwen3_vl")
    pictures = ((1, 391), (1, 300))
    proven = ("qwen2_5_vl_text", "qwen3_vl_text")
