"""Which models the packed sequence is taken for: proven families, fixed picture features."""

from __future__ import annotations

from typing import Any

from seva_exp.core.interfaces import VisionLanguageModel
from seva_exp.models.attention import unproven
from seva_exp.training.peft_private import COPY


def refusal(vlm: VisionLanguageModel) -> str:
    """Why this model cannot take the packed sequence; empty if it can."""
    return unproven(vlm) or _dropout(vlm.model.config) or _trained_vision(vlm)


def trained(vlm: VisionLanguageModel) -> list[tuple[str, Any]]:
    """Names and parameters that learn."""
    return [(n, p) for n, p in vlm.model.named_parameters() if p.requires_grad]


def _dropout(config: Any) -> str:
    """Ours has none."""
    for part in (config.get_text_config(), getattr(config, "vision_config", None)):
        if dropout := getattr(part, "attention_dropout", 0.0):
            return f"attention_dropout={dropout} of its config would be left out"
    return ""


def _trained_vision(vlm: VisionLanguageModel) -> str:
    """Kept features are stale where the vision tower learns."""
    decoder = {id(p) for p in vlm.model.get_decoder().parameters()}
    for name, parameter in trained(vlm):
        if id(parameter) not in decoder and COPY not in name:
            return f"{name} is trained, so the pictures' features change"
    return ""
