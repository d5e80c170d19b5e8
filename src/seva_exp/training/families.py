"""Which model families the shared row is proven for (tests/training/test_shared_families.py), and
what is special about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from seva_exp.interfaces import Encoded, VisionLanguageModel

FAMILIES = (
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
class Family:
    """What differs from a causal model. ``sees_both_ways``: the tokens of a prompt that see each
    other in both directions. ``answer_type``: token_type_ids of an answer."""

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
    "gemma3": Family("images", window_over_blocks=True),
    "paligemma": Family("all", answer_type=1),
}
"""By ``model_type``; the others have the defaults."""


def family_of(vlm: VisionLanguageModel) -> Family:
    """What is special about this model."""
    return SPECIAL.get(vlm.model.config.model_type, Family())


def refusal(vlm: VisionLanguageModel) -> str:
    """Why this model cannot take the shared row; empty if it can."""
    config = vlm.model.config
    text = config.get_text_config()
    if config.model_type not in FAMILIES:
        return f"the family {config.model_type} is not proven"
    if text.model_type not in LANGUAGE_MODELS:
        return f"the language model {text.model_type} is not proven"
    if text._attn_implementation not in KERNELS:
        return (
            f"the attention {text._attn_implementation} would take the answers for separate "
            "sequences"
        )
    for part in (text, getattr(config, "vision_config", None)):
        if dropout := getattr(part, "attention_dropout", 0.0):
            return f"attention_dropout={dropout} of its config would be left out"
    return _trained_vision(vlm)


def trained(vlm: VisionLanguageModel) -> list[tuple[str, Any]]:
    """Names and parameters that learn."""
    return [(n, p) for n, p in vlm.model.named_parameters() if p.requires_grad]


def _trained_vision(vlm: VisionLanguageModel) -> str:
    """Kept features are stale where the vision tower learns."""
    decoder = {id(p) for p in vlm.model.get_decoder().parameters()}
    for name, parameter in trained(vlm):
        if id(parameter) not in decoder and ".modules_to_save." not in name:
            return f"{name} is trained, so the pictures' features change"
    return ""


def text_config(model: Any) -> Any:
    """The config that the language model's layers look at."""
    return model.get_decoder().config
