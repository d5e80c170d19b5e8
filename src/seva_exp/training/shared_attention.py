"""Attention over a shared row: no mask of all tokens by all tokens, no prompt's keys and values
copied for its answers.

A function without state under a name of our own in transformers' register, so that it works under
activation checkpointing, which a cache of keys and values does not.

Shape legend: H heads, D width of a head, T tokens, P of one prompt, F of its answers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from seva_exp.training.shared_row import Prompt, SharedRow

NAME = "seva_exp_shared_row"


def shared_row_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared: SharedRow,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """``query`` [1, H, T, D], ``key``, ``value`` [1, H or fewer, T, D] in, [1, T, H, D] out."""
    assert attention_mask is None, "the shared row brings its own masks"
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
        out.append(_attend(q_p, k_p, v_p, on_prompt, scaling, softcap))
        if prompt.fed:
            out.append(_attend(queries[2 * number + 1], k, v, on_all, scaling, softcap))
    return torch.cat(out, dim=2).transpose(1, 2), None


def is_last(module: Any) -> bool:
    """Whether no layer comes after this attention's."""
    return module.layer_idx == module.config.num_hidden_layers - 1


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """Without a mask: causal. ``softcap`` (Gemma2) is what torch's kernels do not know. Keys and
    values that groups of heads share are copied for each head where these kernels would not
    take them: on a GPU they would fall back to scores of all tokens by all tokens."""
    groups = query.shape[1] // key.shape[1]
    shared = query.is_cpu or (mask is None and query.dtype != torch.float32)
    if groups > 1 and (softcap is not None or not shared):
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        groups = 1
    if softcap is None:
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=groups > 1,
        )
    assert scaling is not None
    scores = (query @ key.transpose(2, 3)) * scaling
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        rows = torch.arange(query.shape[2], device=query.device)
        mask = rows[:, None] >= rows
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value


def masks_of(
    shared: SharedRow, window: int | None, device: torch.device
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


def prompt_mask(
    prompt: Prompt, window: int | None, window_over_blocks: bool, device: torch.device
) -> Tensor | None:
    """Causal within the window; tokens of one block see each other."""
    narrow = window is not None and window < prompt.length
    if not prompt.blocks and not narrow:
        return None
    at = torch.arange(prompt.length, device=device)
    near = at > at[:, None] - window if narrow and window is not None else torch.ones_like(at) > 0
    seen = at <= at[:, None]
    if not prompt.blocks:
        return seen & near
    block = torch.tensor(prompt.blocks, device=device)
    together = (block == block[:, None]) & (block >= 0)
    return near & (seen | together) if window_over_blocks else (near & seen) | together


def answer_mask(prompt: Prompt, window: int | None, device: torch.device) -> Tensor:
    """The whole prompt and the answer's own beginning; the window counts from where a token would
    stand if its answer were the only one."""
    lengths = torch.tensor(prompt.answers, device=device)
    answer = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
    start = (lengths.cumsum(0) - lengths)[answer]
    alone = prompt.length + torch.arange(prompt.fed, device=device) - start
    own = (answer == answer[:, None]) & (alone <= alone[:, None])
    seen = torch.cat([own.new_ones(prompt.fed, prompt.length), own], dim=1)
    if window is not None:
        at = torch.cat([torch.arange(prompt.length, device=device), alone])
        seen = seen & (at > alone[:, None] - window)
    return seen


AttentionInterface.register(NAME, shared_row_attention)
"""Not in the register of masks: transformers then makes none."""
