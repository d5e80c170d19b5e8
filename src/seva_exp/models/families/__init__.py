"""Families of models: how each is asked and shown pictures where it differs from the rest."""

from __future__ import annotations

from typing import Any

from seva_exp.models.families.base import Family
from seva_exp.models.families.gemma3 import Gemma3
from seva_exp.models.families.idefics import Idefics
from seva_exp.models.families.internvl import InternVl
from seva_exp.models.families.llava import Llava
from seva_exp.models.families.paligemma import PaliGemma
from seva_exp.models.families.qwen_vl import QwenVl

FAMILIES: dict[str, Family] = {
    "gemma3": Gemma3(),
    "idefics3": Idefics(),
    "internvl": InternVl(),
    "llava": Llava(),
    "llava_next": Llava(),
    "paligemma": PaliGemma(),
    "qwen2_5_vl": QwenVl(),
    "qwen2_vl": QwenVl(),
    "qwen3_vl": QwenVl(),
    "smolvlm": Idefics(),
}
"""By transformers' ``model_type``; any other is asked as most are."""


def family_of(config: Any) -> Family:
    """The family of a model's config."""
    return FAMILIES.get(config.model_type, Family())


__all__ = ["FAMILIES", "Family", "family_of"]
