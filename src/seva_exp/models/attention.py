"""Which models our own attention may stand in for, and what it must know of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from seva_exp.core.interfaces import Encoded, VisionLanguageModel
from seva_exp.models.families import family_of, is_proven
from seva_exp.models.family import Attention

KERNELS = ("sdpa", "eager")
"""Attention implementations that ours may stand in for. Flash attention takes a row whose positions
start again for several packed sequences: answers would not see their prompt."""


def attention_of(vlm: VisionLanguageModel) -> Attention:
    """How this model's attention differs from a causal one."""
    return family_of(vlm.model.config).attention


def unproven_family(config: Any) -> str:
    """Why our attention cannot stand in for that of any model of this config; empty if it may."""
    if not family_of(config).proven:
        return f"the family {config.model_type} is not proven"
    kind = config.get_text_config().model_type
    return "" if is_proven(kind) else f"the language model {kind} is not proven"


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
    return family_of(vlm.model.config).positions(vlm.model, encoded)
