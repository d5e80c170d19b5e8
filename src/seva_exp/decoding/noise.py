"""Noise that is a function of where it is used: of (seed, step, place), so that it is the same in
any batch, and nothing is drawn on the host. Uniform numbers are made by integer arithmetic and are
the same bits on any device; the two logarithms behind them may differ in their last bit.

Each number is a word of SplitMix64 (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number
Generators", figure 17; it passes BigCrush): word j of a row's step is ``mix(key + j * GAMMA)``, and
the key is the step's word of the row's own seed.

Shape legend: R rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """The 64 bits as torch's int64 has them; its sums and products wrap around."""
    return word - (1 << 64) if word >> 63 else word


GAMMA = _signed(0x9E3779B97F4A7C15)
ROUNDS = (30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB))
LAST = 31
SMALLEST, LARGEST = 2.0**-32, 1 - 2.0**-24
"""Of the uniform numbers: 0 and 1 would give noise that is infinite."""


def words(seeds: Tensor, steps: Tensor, count: int) -> Tensor:
    """``seeds``, ``steps`` [R] int64 in, [R, ``count``] int64 out: all 64 bits are random."""
    keys = _mixed(seeds + GAMMA * (steps + 1))
    places = torch.arange(1, count + 1, device=seeds.device)
    return _mixed(keys[:, None] + GAMMA * places)


def _mixed(z: Tensor) -> Tensor:
    for shift, factor in ROUNDS:
        z = (z ^ _shifted(z, shift)).mul_(factor)
    return z.bitwise_xor_(_shifted(z, LAST))


def _shifted(z: Tensor, by: int) -> Tensor:
    """To the right; torch's own shift would bring copies of the sign."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)


def uniform(seeds: Tensor, steps: Tensor, size: int) -> Tensor:
    """[R, V] float32 in (0, 1); two to a word, and near 0 as fine as 2^-31."""
    halves = words(seeds, steps, -(-size // 2)).view(torch.int32)[:, :size]
    return halves.to(torch.float32).abs_().mul_(2.0**-31).clamp_(SMALLEST, LARGEST)


def gumbel(seeds: Tensor, steps: Tensor, size: int) -> Tensor:
    """[R, V] standard Gumbel noise, -log(-log(1 - u)) of a uniform u. The largest noise, which
    decides, comes from the smallest u, where float32 is finest."""
    return uniform(seeds, steps, size).neg_().log1p_().neg_().log_().neg_()
