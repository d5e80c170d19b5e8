"""The noise of sampled decoding: the right distribution, independent over places, steps and rows,
and the same bits whatever the batch and the device."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare, kstest

from seva_exp.core.randomness import seed_for
from seva_exp.decoding.noise import LARGEST, SMALLEST, gumbel, uniform, words

SEEDS = torch.tensor([seed_for(0, "sampling/clean", f"id{i}") for i in range(64)])
MASK = 2**64 - 1


def splitmix(state: int, count: int) -> list[int]:
    """The published generator, in whole numbers."""
    found = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        found.append(z ^ (z >> 31))
    return found


def at(step: int, seeds: torch.Tensor = SEEDS, size: int = 1000) -> torch.Tensor:
    return uniform(seeds, torch.full_like(seeds, step), size)


def test_it_is_splitmix64():
    assert splitmix(1234567, 2) == [6457827717110365317, 3203168211198807973]  # Vigna's test vector
    ours = words(SEEDS[:3], torch.tensor([0, 1, 511]), 40)
    for row, seed, step in zip(ours.tolist(), SEEDS[:3].tolist(), (0, 1, 511), strict=True):
        key = splitmix(seed, step + 1)[step]
        assert [word & MASK for word in row] == splitmix(key, 40)


def test_a_row_s_numbers_depend_on_no_other_row_and_no_size():
    together = at(7)
    for size in (999, 1000):
        alone = at(7, SEEDS[5:6], size)
        assert torch.equal(alone[0], together[5, :size])
    mixed = uniform(SEEDS[:4], torch.tensor([7, 3, 7, 0]), 1000)
    assert torch.equal(mixed[::2], together[:4:2]) and torch.equal(mixed[1], at(3)[1])


def test_numbers_are_uniform():
    drawn = torch.cat([at(step) for step in range(8)]).double()  # 512,000
    for bins in (16, 997):
        counts = torch.histc(drawn, bins, 0, 1)
        assert chisquare(counts.numpy()).pvalue > 0.001
    low = drawn[drawn < 2**-8] * 2**8  # where the largest noise comes from
    assert len(low) > 1500 and kstest(low.numpy(), "uniform").pvalue > 0.001


@pytest.mark.parametrize("between", ["places", "halves", "steps", "rows"])
def test_neighbours_are_independent(between):
    """Pairs of numbers, in 16 by 16 cells."""
    first, second = {
        "places": lambda: (at(0)[:, :-2], at(0)[:, 2:]),
        "halves": lambda: (at(0)[:, ::2], at(0)[:, 1::2]),
        "steps": lambda: (at(4), at(5)),
        "rows": lambda: (at(0)[:-1], at(0)[1:]),
    }[between]()
    cells = (first * 16).long() * 16 + (second * 16).long()
    assert chisquare(torch.bincount(cells.flatten(), minlength=256).numpy()).pvalue > 0.001
    both = torch.stack([first.flatten(), second.flatten()]).double()
    assert abs(torch.corrcoef(both)[0, 1]) < 4 / both.shape[1] ** 0.5


def test_seeds_that_are_near_each_other_share_nothing():
    near = torch.arange(64) + 10**6
    assert len(words(near, torch.zeros_like(near), 1000).unique()) == 64_000
    assert chisquare(torch.histc(at(0, near).double(), 64, 0, 1).numpy()).pvalue > 0.001


def test_the_noise_is_standard_gumbel_and_finite():
    noise = gumbel(SEEDS[:8], torch.zeros(8, dtype=torch.long), 50_000)
    assert noise.isfinite().all()
    assert kstest(noise.flatten().double().numpy(), "gumbel_r").pvalue > 0.001
    for edge in (SMALLEST, LARGEST):
        assert torch.tensor(edge).neg().log1p().neg().log().neg().isfinite()


def test_the_argmax_is_drawn_from_the_softmax():
    """20,000 rows; top-heavy, with a tail of rare tokens."""
    logits = torch.cat([torch.tensor([3.0, 2.5, 1.0, 0.0]), torch.full((300,), -3.0)])
    seeds = torch.tensor([seed_for(1, "x", str(i)) for i in range(20_000)])
    drawn = (logits + gumbel(seeds, torch.zeros_like(seeds), len(logits))).argmax(dim=1)
    counts = torch.bincount(drawn, minlength=len(logits)).double()
    wanted = logits.double().softmax(0) * len(seeds)
    cells = [*counts[:4].tolist(), *counts[4:].reshape(10, -1).sum(1).tolist()]
    expected = [*wanted[:4].tolist(), *wanted[4:].reshape(10, -1).sum(1).tolist()]
    assert chisquare(cells, expected).pvalue > 0.001
