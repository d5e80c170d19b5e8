"""Where keys and values lie during generation: the prefix of each picture once, and behind it what
each row has of its own.

Two buffers a layer, grown when needed and dense: what leaves is overwritten by the last one, so
that a step reads no dead slot.

Shape legend: S prefixes, P places for each, R rows, O places for each, K key heads, D their width.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

from torch import Tensor

STEP = 32
"""Places by which rows grow at once."""
PARTS = 64


@dataclass(frozen=True)
class Extent:
    """The size of buffers: needed, or allocated."""

    prefixes: int = 0
    prefix_length: int = 0
    rows: int = 0
    row_length: int = 0

    @property
    def tokens(self) -> int:
        """The number of tokens that buffers of this size hold."""
        return self.prefixes * self.prefix_length + self.rows * self.row_length

    def covers(self, other: Extent) -> bool:
        """Whether ``other`` fits into this extent."""
        return all(a >= b for a, b in zip(astuple(self), astuple(other), strict=True))

    def with_one(self, prefix: int, own: int) -> Extent:
        """And one more row, behind a new prefix of that length (0: behind one that is there)."""
        return Extent(
            self.prefixes + (prefix > 0),
            max(self.prefix_length, prefix),
            self.rows + 1,
            max(self.row_length, own),
        )

    def longer(self, by: int) -> Extent:
        """With so many more places for each row."""
        return replace(self, row_length=self.row_length + by)

    def towards(self, other: Extent, budget: int) -> Extent:
        """The extent as far on the way to ``other``, which is nowhere smaller, as ``budget`` tokens
        allow."""
        own, wanted = astuple(self), astuple(other)
        for part in range(PARTS, 0, -1):
            found = Extent(*(a + (b - a) * part // PARTS for a, b in zip(own, wanted, strict=True)))
            if found.tokens <= budget:
                return found
        return self

    def roomy(self, other: Extent, rows: int) -> Extent:
        """This extent grown to hold ``other`` and some more, so that it is not soon grown again."""
        return Extent(
            max(self.prefixes, other.prefixes, min(rows, power(other.prefixes))),
            max(self.prefix_length, _rounded(other.prefix_length, 16)),
            max(self.rows, min(rows, power(other.rows))),
            max(self.row_length, _rounded(other.row_length, STEP)),
        )


def power(n: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(0, n - 1).bit_length()


def _rounded(n: int, step: int) -> int:
    return -(-n // step) * step


class KVCache:
    """``prefixes[layer]`` [2, S, K, P, D] and ``own[layer]`` [2, R, K, O, D]: keys, then values.
    What comes into a slot finds 0 in it, never what was there before: where that was no number (an
    overflow), a weight of 0 times it would be none. ``sizes``: how many they had; with each the
    buffers may be other ones."""

    def __init__(self) -> None:
        self.extent = Extent()
        self.sizes = 0
        self.prefixes: dict[int, Tensor] = {}
        self.own: dict[int, Tensor] = {}

    def fit(self, need: Extent, budget: int, rows: int) -> None:
        """Make room for ``need``, which is within ``budget`` tokens; ``rows`` bounds the slots."""
        if self.extent.covers(need):
            return
        roomy = self.extent.roomy(need, rows)
        longer = replace(roomy, prefixes=need.prefixes, rows=need.rows)  # rows grow at each step
        self.extent = need.towards(longer, budget).towards(roomy, budget)
        self.sizes += 1
        e = self.extent
        for buffers, count, length in (
            (self.prefixes, e.prefixes, e.prefix_length),
            (self.own, e.rows, e.row_length),
        ):
            for layer, old in buffers.items():
                if (old.shape[1], old.shape[3]) != (count, length):
                    buffers[layer] = _resized(old, count, length)

    def layer(self, index: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's buffers, made at its first call for keys ``like`` [1, K, any, D]."""
        if index not in self.own:
            e, (_, heads, _, width) = self.extent, like.shape
            shape = (e.prefixes, heads, e.prefix_length, width)
            self.prefixes[index] = like.new_zeros(2, *shape)
            self.own[index] = like.new_zeros(2, e.rows, heads, e.row_length, width)
        return self.prefixes[index], self.own[index]

    def move(self, buffers: dict[int, Tensor], source: int, target: int) -> None:
        """All places of slot ``source`` to slot ``target``."""
        for buffer in buffers.values():
            buffer[:, target] = buffer[:, source]


def _resized(old: Tensor, count: int, length: int) -> Tensor:
    new = old.new_zeros(2, count, old.shape[2], length, old.shape[4])
    n, long = min(count, old.shape[1]), min(length, old.shape[3])
    new[:, :n, :, :long] = old[:, :n, :, :long]
    return new


def bytes_per_token(model: Any) -> int:
    """Of keys and values in all layers, by the language model's config."""
    config = model.get_decoder().config
    heads = config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
