"""Which model families our own attention is proven for (tests/training/test_shared_families.py,
tests/generation/test_engine_families.py), and what is special about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from seva_exp.core.interfaces import Encoded, VisionLanguageModel

PROVEN = (
    "gemma3",
    "idefics3",
    "internvl",
    "llava",
    "llava_next",
    "llava_onevision",
    "paligemma",
    "qwen2_5_vl",
    "qwen3_vl",
    "smolvlm",
)
"""transformers' ``model_type``."""
LANGUAGE_MODELS = (
    "gemma2",
    "gemma3_text",
    "llama",
    "mistral",
    "qwen2",
    "qwen2_5_vl_text",
    "qwen3_vl_text",
)
"""``model_type`` of the text model: attention must be the only thing that mixes tokens (a linear
attention's state would leak from one answer into the next)."""
KERNELS = ("sdpa", "eager")
"""Attention implementations that ours may stand in for. Flash attention takes a row whose positions
start again for several packed sequences: answers would not see their prompt."""


@dataclass(frozen=True)
class Attention:
    """What differs from a causal model. ``sees_both_ways``: the tokens of a
    prompt that see each other in both directions. ``answer_type``: token_type_ids of an answer."""

    sees_both_ways: Literal["none", "images", "all"] = "none"
    window_over_blocks: bool = False
    answer_type: int = 0

    def blocks(self, encoded: Encoded) -> tuple[int, ...]:
        """A number per prompt token, equal for tokens that see each other; -1: causal."""
        if self.sees_both_ways == "none":
            return ()
        if self.sees_both_ways == "all":
            return (0,) * len(encoded.ids)
        numbers, block, before = [], -1, 0
        for kind in encoded.types["token_type_ids"]:
            block += kind == 1 and before != 1
            numbers.append(block if kind == 1 else -1)
            before = kind
        return tuple(numbers)


SPECIAL = {
    "gemma3": Attention("images", window_over_blocks=True),
    "paligemma": Attention("all", answer_type=1),
}
"""By ``model_type``; the others have the defaults."""


def attention_of(vlm: VisionLanguageModel) -> Attention:
    """What is special about this model."""
    return SPECIAL.get(vlm.model.config.model_type, Attention())


def unproven_family(config: Any) -> str:
    """Why our attention cannot stand in for that of any model of this config; empty if it may."""
    if config.model_type not in PROVEN:
        return f"the family {config.model_type} is not proven"
    kind = config.get_text_config().model_type
    return "" if kind in LANGUAGE_MODELS else f"the language model {kind} is not proven"


def unproven(vlm: VisionLanguageModel) -> str:
    """Why our attention cannot stand in for this model's; empty if it can."""
    if why := unproven_family(vlm.model.config):
        return why
    text = vlm.model.config.get_text_config()
    if text._attn_implementation not in KERNELS:
        return (
            f"the attention {text._attn_implementation} would take the answers for separate "
            "sequences"
        )
    return ""


def text_config(model: Any) -> Any:
    """The config that the language model's layers look at."""
    return model.get_decoder().config


@contextmanager
def attends_by(model: Any, name: str) -> Iterator[None]:
    """The language model attends by the function that transformers' ``AttentionInterface`` holds
    under ``name`` until the end of the block: layers read this private field of their config in
    each call."""
    config = text_config(model)
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def positions_of(vlm: VisionLanguageModel, encoded: Encoded) -> torch.Tensor:
    """A prompt's rope positions: [1, L], or [3, L] (time, height, width) for the Qwen-VL line. An
    answer's go on from the largest, the same on all axes."""
    inner = vlm.model.base_model
    find: Callable[..., Any] | None = getattr(inner, "get_rope_index", None)
    if find is None:
        return torch.arange(len(encoded.ids))[None]  # rotary: where they begin is no matter
    types = torch.tensor([encoded.types["mm_token_type_ids"]])
    grid = encoded.image.pixels["image_grid_thw"].cpu()
    found, _ = find(torch.tensor([encoded.ids]), mm_token_type_ids=types, image_grid_thw=grid)
    return found[:, 0]
