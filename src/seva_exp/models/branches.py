"""A prompt and the answers (or questions) that branch off behind it: who sees whom, and attention.

Shape legend: H heads, D width of a head, P tokens of a prompt, F of all its branches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from seva_exp.models.transfer import put


@dataclass(frozen=True)
class Prompt:
    """A prompt's length and the fed lengths of its ``answers`` (in training an answer's last token
    is predicted, not fed; in generation they are the ends of questions with one beginning). Tokens
    of one ``block`` (0 and up; -1: none) see each other."""

    length: int
    answers: tuple[int, ...]
    blocks: tuple[int, ...] = ()

    @property
    def fed(self) -> int:
        """Tokens of all its answers."""
        return sum(self.answers)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """``query`` [1, H, tokens, D], ``key`` and ``value`` with H heads or fewer. Without a mask:
    causal. ``softcap`` (Gemma2) is what torch's kernels do not know. Keys and values that groups of
    heads share are copied for each head where these kernels would not take them: on a GPU they
    would fall back to scores of all tokens by all tokens."""
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
    block = put(torch.tensor(prompt.blocks), device)
    together = (block == block[:, None]) & (block >= 0)
    return near & (seen | together) if window_over_blocks else (near & seen) | together


def answer_mask(prompt: Prompt, window: int | None, device: torch.device) -> Tensor:
    """The whole prompt and the answer's own beginning; the window counts from where a token would
    stand if its answer were the only one."""
    lengths = put(torch.tensor(prompt.answers), device)
    answer = torch.arange(len(lengths), device=device)
    answer = answer.repeat_interleave(lengths, output_size=prompt.fed)  # without it, a sync
    start = (lengths.cumsum(0) - lengths)[answer]
    alone = prompt.length + torch.arange(prompt.fed, device=device) - start
    own = (answer == answer[:, None]) & (alone <= alone[:, None])
    seen = torch.cat([own.new_ones(prompt.fed, prompt.length), own], dim=1)
    if window is not None:
        at = torch.cat([torch.arange(prompt.length, device=device), alone])
        seen = seen & (at > alone[:, None] - window)
    return seen
