"""Pictures' features: what a vision tower and its projector give the language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from seva_exp.core.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.models.families import family_of

PARTS = ("pooler_output", "deepstack_features")
"""What the language model takes of a vision tower's output; lists with an entry per picture, or
one tensor, or (deepstack) a list of lists, one a layer."""


def features_of(vlm: VisionLanguageModel, images: Sequence[EncodedImage]) -> list[Any]:
    """Each picture's features, as one output of ``get_image_features``."""
    see = vlm.model.base_model.get_image_features
    if not family_of(vlm.model.config).vision.one_block:
        return [wanted(see(**vlm.image_inputs([image]), return_dict=True)) for image in images]
    out = wanted(see(**vlm.image_inputs(images), return_dict=True))
    return [type(out)(pooler_output=[one]) for one in out.pooler_output]


def tower_apart(vlm: VisionLanguageModel) -> str:
    """The vision tower's name below the base model, where the projector is no part of it; else an
    empty one."""
    vision = family_of(vlm.model.config).vision
    if not vision.apart:
        return ""
    return next((name for name in vision.towers if hasattr(vlm.model.base_model, name)), "")


def wanted(out: Any) -> Any:
    """The PARTS of a tower's output."""
    return type(out)(**{name: out[name] for name in PARTS if out.get(name) is not None})


def moved(value: Any, device: Any) -> Any:
    """Nested lists and outputs of tensors, on ``device``."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return type(value)(**{name: moved(one, device) for name, one in value.items()})
    if isinstance(value, (list, tuple)):
        return [moved(one, device) for one in value]
    return value


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in nested lists and outputs."""
    if isinstance(value, torch.Tensor):
        return [value]
    if value is None:
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [tensor for one in inner for tensor in tensors(one)]


def joined(outputs: Sequence[Any]) -> Any:
    """Outputs of single pictures as the one of a batch."""
    first = outputs[0]
    return type(first)(**{name: _join([out[name] for out in outputs], name) for name in first})


def _join(parts: list[Any], name: str) -> Any:
    if isinstance(parts[0], torch.Tensor):
        return torch.cat(parts)
    if name == "deepstack_features":
        return [[one for layer in layers for one in layer] for layers in zip(*parts, strict=True)]
    return [one for part in parts for one in part]
