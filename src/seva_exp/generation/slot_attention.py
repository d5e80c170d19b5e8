"""Attention over slots: a function of our own in transformers' register, which gets what it needs
of the step as a keyword that the model passes on.

A ``Prefill`` runs beginnings and ends of questions in one row without padding; a ``Decode`` runs
one token of every row. Both write keys and values in place.

Shape legend: S prefixes, P places for each, R rows, O places for each, M most rows of one prefix,
H heads, K key heads, G = H / K, D width of a head, T tokens of a step, F ends of questions in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from seva_exp.generation.slots import Slots
from seva_exp.models.attention import text_config
from seva_exp.models.branches import Prompt, answer_mask, attend, prompt_mask

NAME = "seva_exp_slots"


@dataclass(frozen=True)
class Manner:
    """How a layer attends: the scale of its scores, its sliding window, its soft cap."""

    scaling: float
    window: int | None
    softcap: float | None


class Step(Protocol):
    """One forward pass over the slots."""

    def attention(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, manner: Manner
    ) -> Tensor:
        """``query`` [1, H, T, D], ``key``, ``value`` [1, K, T, D] in; [1, H, T, D] out."""
        ...


def slot_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    step: Step,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """[1, T, H, D] out."""
    assert attention_mask is None, "a step brings its own masks"
    manner = Manner(scaling or query.shape[-1] ** -0.5, sliding_window, softcap)
    out = step.attention(module.layer_idx, query, key, value, manner)
    return out.transpose(1, 2), None


@contextmanager
def over_slots(model: Any) -> Iterator[None]:
    """The language model attends by ``slot_attention`` until the end of the block."""
    config = text_config(model)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@dataclass(frozen=True)
class Part:
    """A prefix in ``slot`` (run now if ``new``) and ends of questions behind it."""

    slot: int
    new: bool
    prompt: Prompt


@dataclass
class Prefill:
    """Parts one after the other: a new prefix, then its ends. End token number i of the step is
    place ``ends[i]`` of T; it goes to row ``rows[i]``, place ``at[i]``."""

    slots: Slots
    parts: Sequence[Part]
    ends: Tensor
    rows: Tensor
    at: Tensor
    window_over_blocks: bool
    masks: dict[Any, Any] = field(default_factory=dict)

    def attention(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, manner: Manner
    ) -> Tensor:
        prefixes, own = self.slots.layer(layer, key)
        if len(self.ends):
            for buffer, made in ((own[0], key), (own[1], value)):
                buffer[self.rows, :, self.at] = made[0][:, self.ends].transpose(0, 1)
        out, start = [], 0
        for part, (on_prefix, on_all) in zip(self.parts, self._masks(manner, query), strict=True):
            kept = prefixes[:, part.slot, :, : part.prompt.length]
            if part.new:
                here = slice(start, start := start + part.prompt.length)
                kept[0], kept[1] = key[0, :, here], value[0, :, here]
                whole = key[:, :, here], value[:, :, here]
                out.append(_attend(query[:, :, here], *whole, on_prefix, manner))
            if part.prompt.fed:
                here = slice(start, start := start + part.prompt.fed)
                k = torch.cat([kept[0][None], key[:, :, here]], dim=2)
                v = torch.cat([kept[1][None], value[:, :, here]], dim=2)
                out.append(_attend(query[:, :, here], k, v, on_all, manner))
        return torch.cat(out, dim=2)

    def _masks(self, manner: Manner, like: Tensor) -> list[tuple[Tensor | None, Tensor | None]]:
        """Per part: who sees whom in a new prefix (None: causal), and what its ends see."""
        window, device = manner.window, like.device
        if window not in self.masks:
            over = self.window_over_blocks
            self.masks[window] = [
                (
                    prompt_mask(p.prompt, window, over, device) if p.new else None,
                    answer_mask(p.prompt, window, device) if p.prompt.fed else None,
                )
                for p in self.parts
            ]
        return self.masks[window]


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, manner: Manner) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    return attend(q, k, v, mask, manner.scaling, manner.softcap)


class Layout:
    """Which rows are behind which prefix; it stands until a row comes or goes.

    ``owners`` [R]: the prefix of each row."""

    def __init__(self, owners: Sequence[int], prefixes: int, device: Any) -> None:
        members: list[list[int]] = [[] for _ in range(prefixes)]
        places = []
        for row, owner in enumerate(owners):
            places.append(len(members[owner]))
            members[owner].append(row)
        most = max(map(len, members))
        self.prefixes = prefixes
        self._plain = members == [[row] for row in range(len(owners))]
        padded = [rows + [0] * (most - len(rows)) for rows in members]
        self._members = torch.tensor(padded, device=device)
        self._owners = torch.tensor(owners, device=device)
        self._places = torch.tensor(places, device=device)

    def by_prefix(self, x: Tensor) -> Tensor:
        """[R, K, G, n] to [S, K, G * M, n]; a prefix with fewer rows repeats row 0."""
        if self._plain:
            return x
        return x[self._members].permute(0, 2, 3, 1, 4).flatten(2, 3)

    def by_row(self, x: Tensor) -> Tensor:
        """Back: [S, K, G * M, n] to [R, K, G, n]."""
        if self._plain:
            return x
        apart = x.unflatten(2, (-1, self._members.shape[1]))
        return apart[self._owners, :, :, self._places]


@dataclass
class Decode:
    """One token of each of R rows, number i in slot i. ``before`` [R]: places of its prefix,
    ``at`` [R]: where its key goes; ``longest`` and ``own``: how many places are looked at."""

    slots: Slots
    layout: Layout
    before: Tensor
    at: Tensor
    longest: int
    own: int
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def attention(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, manner: Manner
    ) -> Tensor:
        """The scores on prefix and own tokens under one softmax; a prefix is read once for all its
        rows."""
        prefixes, own = self.slots.layer(layer, key)
        count, heads = query.shape[2], key.shape[1]
        every = torch.arange(count, device=key.device)
        own[0][every, :, self.at] = key[0].transpose(0, 1)
        own[1][every, :, self.at] = value[0].transpose(0, 1)
        keys, values = own[:, :count, :, : self.own]
        prefix_keys, prefix_values = prefixes[:, : self.layout.prefixes, :, : self.longest]
        q = query[0].unflatten(0, (heads, -1)).permute(2, 0, 1, 3)  # [R, K, G, D]
        on_prefix = self.layout.by_prefix(q) @ prefix_keys.transpose(2, 3)
        scores = torch.cat([self.layout.by_row(on_prefix), q @ keys.transpose(2, 3)], dim=-1)
        weights = self._weights(scores, manner)
        split = weights.split([self.longest, self.own], dim=-1)
        out = self.layout.by_row(self.layout.by_prefix(split[0]) @ prefix_values)
        out = out + split[1] @ values
        return out.permute(1, 2, 0, 3).flatten(0, 1)[None]

    def _weights(self, scores: Tensor, manner: Manner) -> Tensor:
        scores = scores * manner.scaling
        if manner.softcap is not None:
            scores = torch.tanh(scores / manner.softcap) * manner.softcap
        scores = scores.masked_fill(self._unseen(manner.window), -torch.inf)
        return scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype)

    def _unseen(self, window: int | None) -> Tensor:
        """[R, 1, 1, P + O]: places that hold nothing of the row's, or lie before its window."""
        if window not in self.masks:
            device, before, at = self.at.device, self.before[:, None], self.at[:, None]
            prefix = torch.arange(self.longest, device=device)
            own = torch.arange(self.own, device=device)
            seen = torch.cat([prefix < before, own <= at], dim=1)
            if window is not None:
                index = torch.cat([prefix.expand(len(before), -1), before + own], dim=1)
                seen &= index > before + at - window
            self.masks[window] = ~seen[:, None, None]
        return self.masks[window]


AttentionInterface.register(NAME, slot_attention)
"""Not in the register of masks: transformers then makes none."""
