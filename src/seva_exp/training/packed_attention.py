"""Attention over a packed sequence: no mask of all tokens by all tokens, no prompt's keys and
values copied for its answers.

A function without state under a name of our own in transformers' register, so that it works under
activation checkpointing, which a cache of keys and values does not.

Shape legend: H heads, D width of a head, T tokens, P of one prompt, F of its answers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from seva_exp.models.branches import answer_mask, attend, prompt_mask
from seva_exp.training.packed import PackedSequence

NAME = "seva_exp_packed"


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared: PackedSequence,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """``query`` [1, H, T, D], ``key``, ``value`` [1, H or fewer, T, D] in, [1, T, H, D] out."""
    assert attention_mask is None, "the packed sequence brings its own masks"
    sizes = [size for p in shared.prompts for size in (p.length, p.fed)]
    queries = query.split(sizes, dim=2)
    whole = [p.length + p.fed for p in shared.prompts]
    out: list[Tensor] = []
    masks = masks_of(shared, sliding_window, query.device)
    for number, (prompt, k, v) in enumerate(
        zip(shared.prompts, key.split(whole, dim=2), value.split(whole, dim=2), strict=True)
    ):
        on_prompt, on_all = masks[number]
        k_p, v_p = k[:, :, : prompt.length], v[:, :, : prompt.length]
        q_p = queries[2 * number]
        if is_last(module):  # of the prompt only the last place is looked at
            out.append(torch.zeros_like(q_p[:, :, 1:]))
            q_p = q_p[:, :, -1:]
            on_prompt = (
                k_p.new_ones(1, prompt.length).bool() if on_prompt is None else on_prompt[-1:]
            )
        out.append(attend(q_p, k_p, v_p, on_prompt, scaling, softcap))
        if prompt.fed:
            out.append(attend(queries[2 * number + 1], k, v, on_all, scaling, softcap))
    return torch.cat(out, dim=2).transpose(1, 2), None


def is_last(module: Any) -> bool:
    """Whether no layer comes after this attention's."""
    return module.layer_idx == module.config.num_hidden_layers - 1


def masks_of(
    shared: PackedSequence, window: int | None, device: torch.device
) -> list[tuple[Tensor | None, Tensor]]:
    """Per prompt: who sees whom in the prompt [P, P] (None: causal), and what its answers see
    [F, P + F]. Made once a row; true means seen."""
    kind = (window, device)
    if kind not in shared.masks:
        over = shared.window_over_blocks
        shared.masks[kind] = [
            (prompt_mask(p, window, over, device), answer_mask(p, window, device))
            for p in shared.prompts
        ]
    return shared.masks[kind]


AttentionInterface.register(NAME, packed_attention)
"""Not in the register of masks: transformers then makes none."""
