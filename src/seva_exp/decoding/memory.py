"""Bytes that generation holds at most, by the sizes of the model, and how many rows fit. No torch.

Generation takes as many rows as there is room for (budget.py), so what it needs is room for one;
``tests/experiment/test_memory.py`` holds the sums to what a CPU and a counted GPU really take.
"""

from __future__ import annotations

from dataclasses import dataclass

from seva_exp.core.device_memory import Numbers
from seva_exp.models.footprint import Footprint

SHARE = {"cuda": 0.8, "cpu": 0.5}
"""Of what is free beside the weights, for keys and values, by device type; the rest is for
activations. MPS shares the CPU's."""
PREFILL = 2048
"""Tokens of questions and pictures in a forward pass that takes rows in, unless one has more."""
ROUNDED = 16, 32
"""Places to which prefixes and rows are rounded up (kv_cache.py)."""


@dataclass(frozen=True)
class Rows:
    """``many`` rows at once take ``bytes`` beside the weights, of which those of one answer alone
    need ``one``."""

    many: int
    bytes: float
    one: float


def rows(
    model: Footprint,
    numbers: Numbers,
    room: float,
    most: int,
    *,
    question: int,
    answer: int,
    budget: int | None = None,
    each: int = 1,
) -> Rows:
    """Rows that run at once where ``room`` bytes are left beside the weights; ``most`` of them, and
    of ``budget`` tokens of keys and values where that is given. ``each``: rows of an answer."""
    prefix = _rounded(model.image_tokens + question, ROUNDED[0])
    tokens = prefix + _rounded(answer + 1, ROUNDED[1])
    kept = model.kept(numbers.item)
    share = SHARE["cuda" if numbers.gpu else "cpu"]
    allowed = budget if budget is not None else max(0.0, share * room / kept)
    many = max(each, min(most, int(allowed // tokens)))

    def held(count: int) -> float:
        passing = _passing(model, numbers, prefix, count)
        return count * (tokens * kept + _step(model, numbers, tokens)) + passing

    one = held(each) if budget is not None else max(held(each), each * tokens * kept / share)
    return Rows(many, held(many), one)


def _passing(model: Footprint, numbers: Numbers, prefix: int, many: int) -> float:
    """A forward pass that takes rows in."""
    pictures = max(1, min(many, PREFILL // prefix))
    tokens = pictures * prefix
    layer = tokens * (5 * model.width + 3 * model.middle) * numbers.item
    logits = pictures * model.vocabulary * (numbers.item + 8)
    return layer + logits + model.patches * pictures * model.tower_width * numbers.item


def _step(model: Footprint, numbers: Numbers, tokens: int) -> float:
    """Of one row in a step: a layer's scores, its keys and values once more, logits."""
    scores = model.heads * tokens * (3 * numbers.item + 4)
    copied = tokens * model.kept(numbers.item) / model.layers
    return scores + copied + model.vocabulary * (numbers.item + 8)


def _rounded(n: int, step: int) -> int:
    return -(-n // step) * step
