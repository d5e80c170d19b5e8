"""Attention over the KV cache: a function of our own in transformers' register, which gets what it
needs of the step as a keyword that the model passes on.

A ``Prefill`` runs beginnings and ends of questions in one row without padding; a ``Decode`` runs
one token of every row. Both write keys and values in place.

Shape legend: S prefixes, P places for each, R rows, O places for each, M most rows of one prefix,
H heads, K key heads, G = H / K, D width of a head, T tokens of a step, F ends of questions in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from seva_exp.decoding.kv_cache import Extent, KVCache, power
from seva_exp.models.branches import Prompt, answer_mask, attend, prompt_mask
from seva_exp.models.transfer import put

NAME = "seva_exp_kv_cache"


@dataclass(frozen=True)
class Manner:
    """How a layer attends: the scale of its scores, its sliding window, its soft cap."""

    scaling: float
    window: int | None
    softcap: float | None


class Step(Protocol):
    """One forward pass over the KV cache."""

    def attention(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, manner: Manner
    ) -> Tensor:
        """``query`` [1, H, T, D], ``key``, ``value`` [1, K, T, D] in; [1, H, T, D] out."""
        ...


def kv_attention(
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


@dataclass(frozen=True)
class Part:
    """A prefix in ``slot`` (run now if ``new``) and ends of questions behind it."""

    slot: int
    new: bool
    prompt: Prompt


@dataclass
class Prefill:
    """Parts one after the other: a new prefix, then its ends. ``fresh`` are the slots of the rows
    that come in. End token number i of the step is place ``ends[i]`` of T; it goes to row
    ``rows[i]``, place ``at[i]``."""

    cache: KVCache
    parts: Sequence[Part]
    fresh: slice
    ends: Tensor
    rows: Tensor
    at: Tensor
    window_over_blocks: bool
    masks: dict[Any, Any] = field(default_factory=dict)

    def attention(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, manner: Manner
    ) -> Tensor:
        prefixes, own = self.cache.layer(layer, key)
        own[:, self.fresh] = 0
        if len(self.ends):
            for buffer, made in ((own[0], key), (own[1], value)):
                buffer[self.rows, :, self.at] = made[0][:, self.ends].transpose(0, 1)
        out, start = [], 0
        for part, (on_prefix, on_all) in zip(self.parts, self._masks(manner, query), strict=True):
            kept = prefixes[:, part.slot, :, : part.prompt.length]
            if part.new:
                here = slice(start, start := start + part.prompt.length)
                kept[0], kept[1] = key[0, :, here], value[0, :, here]
                prefixes[:, part.slot, :, part.prompt.length :] = 0
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
    return attend(q, k, v, mask, manner.scaling, manner.softcap)


@dataclass(frozen=True)
class Shape:
    """Of a decode step: R rows, S prefixes, M rows at most behind one, P and O places that are
    looked at. ``plain``: row i is the only one behind prefix i."""

    rows: int
    prefixes: int
    most: int
    longest: int
    own: int
    plain: bool

    def rounded(self, extent: Extent) -> Shape:
        """Up to one of few shapes, within what is there."""
        rows = min(extent.rows, power(self.rows))
        prefixes = min(extent.prefixes, power(self.prefixes))
        own = min(extent.row_length, power(max(self.own, 32)))
        plain = self.plain and rows == prefixes
        return Shape(rows, prefixes, power(self.most), extent.prefix_length, own, plain)


class Layout:
    """Which rows are behind which prefix; it stands until a row comes or goes. ``owners``: each
    row's prefix, ``places``: its number behind it."""

    def __init__(self, owners: list[int], prefixes: int, device: torch.device) -> None:
        self.owners = owners
        self.places: list[int] = []
        self._behind: list[list[int]] = [[] for _ in range(prefixes)]
        for row, owner in enumerate(owners):
            self.places.append(len(self._behind[owner]))
            self._behind[owner].append(row)
        self._device = device
        self._members: dict[tuple[int, int], Tensor] = {}

    def shape(self, longest: int, own: int) -> Shape:
        """The smallest that holds it."""
        behind, rows = self._behind, len(self.owners)
        plain = behind == [[row] for row in range(rows)]
        return Shape(rows, len(behind), max(map(len, behind)), longest, own, plain)

    def members(self, shape: Shape) -> Tensor:
        """[S, M]: the rows behind each prefix, filled up with row 0."""
        size = shape.prefixes, shape.most
        if size not in self._members:
            none: list[list[int]] = [[]] * (shape.prefixes - len(self._behind))
            full = [rows + [0] * (shape.most - len(rows)) for rows in [*self._behind, *none]]
            self._members[size] = put(torch.tensor(full), self._device)
        return self._members[size]


@dataclass
class Decode:
    """One token of each of R rows, number i in slot i. ``before`` [R]: places of its prefix,
    ``at`` [R]: where its key goes; ``owners``, ``places`` [R] and ``members`` [S, M] as in Layout.
    """

    cache: KVCache
    shape: Shape
    before: Tensor
    at: Tensor
    owners: Tensor
    places: Tensor
    members: Tensor
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.every = torch.arange(len(self.at), device=self.at.device)

    def by_prefix(self, x: Tensor) -> Tensor:
        """[R, K, G, n] to [S, K, G * M, n]; a prefix with fewer rows repeats row 0."""
        if self.shape.plain:
            return x
        return x[self.members].permute(0, 2, 3, 1, 4).flatten(2, 3)

    def by_row(self, x: Tensor) -> Tensor:
        """Back: [S, K, G * M, n] to [R, K, G, n]."""
        if self.shape.plain:
            return x
        apart = x.unflatten(2, (-1, self.shape.most))
        return apart[self.owners, :, :, self.places]

    def attention(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, manner: Manner
    ) -> Tensor:
        """The scores on prefix and own tokens under one softmax; a prefix is read once for all its
        rows."""
        prefixes, own = self.cache.layer(layer, key)
        count, heads = query.shape[2], key.shape[1]
        own[0][self.every, :, self.at] = key[0].transpose(0, 1)
        own[1][self.every, :, self.at] = value[0].transpose(0, 1)
        keys, values = own[:, :count, :, : self.shape.own]
        prefix_keys, prefix_values = prefixes[:, : self.shape.prefixes, :, : self.shape.longest]
        q = query[0].unflatten(0, (heads, -1)).permute(2, 0, 1, 3)  # [R, K, G, D]
        on_prefix = self.by_prefix(q) @ prefix_keys.transpose(2, 3)
        scores = torch.cat([self.by_row(on_prefix), q @ keys.transpose(2, 3)], dim=-1)
        weights = self._weights(scores, manner)
        split = weights.split([self.shape.longest, self.shape.own], dim=-1)
        out = self.by_row(self.by_prefix(split[0]) @ prefix_values)
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
            prefix = torch.arange(self.shape.longest, device=device)
            own = torch.arange(self.shape.own, device=device)
            seen = torch.cat([prefix < before, own <= at], dim=1)
            if window is not None:
                index = torch.cat([prefix.expand(len(before), -1), before + own], dim=1)
                seen &= index > before + at - window
            self.masks[window] = ~seen[:, None, None]
        return self.masks[window]


AttentionInterface.register(NAME, kv_attention)
"""Not in the register of masks: transformers then makes none."""
