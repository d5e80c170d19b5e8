"""Weights that are shared out over the ranks (FSDP2, DeepSpeed ZeRO-3): what stays whole, and the
adapter gathered."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers.integrations import is_deepspeed_zero3_enabled

from seva_exp.core.interfaces import VisionLanguageModel
from seva_exp.training.peft_private import TRAINED
from seva_exp.training.trl_private import whole_under_zero3


def share_out(vlm: VisionLanguageModel, accelerator: Any) -> None:
    """Tell FSDP what its units are: the language model's layers, if the config names no others.
    (accelerate's own choice holds layers that a vision-language model lacks, and stops there.)

    Vision tower and projector, so far as they are frozen, stay whole on every rank: one that has a
    picture's features kept does not run them, and another would wait for it for ever.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return
    layers = vlm.model.get_decoder().layers
    plugin.transformer_cls_names_to_wrap = plugin.transformer_cls_names_to_wrap or sorted(
        {type(layer).__name__ for layer in layers}
    )
    plugin.ignored_modules = frozen_vision(vlm)


def frozen_vision(vlm: VisionLanguageModel) -> list[torch.nn.Module]:
    """The modules below the language model that have frozen weights only."""
    decoder = set(vlm.model.get_decoder().modules())
    below = [part for part in vlm.model.base_model.modules() if part not in decoder]
    return [part for part in below if not any(p.requires_grad for p in part.parameters())]


def share_out_again(model: torch.nn.Module) -> None:
    """After a forward pass that no backward pass follows, for which FSDP keeps weights gathered."""
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def refuses_packed() -> str:
    """Why packed sequences cannot be taken with weights shared out like this; empty if they can."""
    if not is_deepspeed_zero3_enabled():
        return ""
    return (
        "under DeepSpeed ZeRO-3 the vision tower is shared out too, so that all processes must "
        "run it together, and kept features would let one go ahead"
    )


def adapter_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """The weights of all adapters by their names in the model, gathered where they are shared out.
    Every rank must ask for them."""
    own = [p for name, p in model.named_parameters() if _of_adapter(name)]
    with whole_under_zero3(*own):
        return {k: _whole(v) for k, v in model.state_dict().items() if _of_adapter(k)}


def local(value: torch.Tensor) -> torch.Tensor:
    """This rank's part of a weight."""
    return value.to_local() if isinstance(value, DTensor) else value


def _of_adapter(name: str) -> bool:
    return any(part in name for part in TRAINED)


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value.clone()
