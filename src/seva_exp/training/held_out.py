"""Preferences that are not trained on but scored while training (``dpo.held_out``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from seva_exp.core.errors import StageError
from seva_exp.core.randomness import seed_for
from seva_exp.training.batches import SeededOrder, StepBatches
from seva_exp.training.collate import Preference
from seva_exp.training.sharding import share_out_again
from seva_exp.training.spec import HELD_OUT
from seva_exp.training.trl_private import TrlTrainer

KEPT = ("loss", "loss/", "rewards/", "logps/", "kl_k1/")
"""What of a step's metrics is told of those that are held out: these, or all below them."""
TIMES = 10
"""How often they are scored: after the first step, and at each tenth of the steps."""


def split(
    preferences: Sequence[Preference], share: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """Those to train on, and those that are held out, each once however often it is listed.

    It is the pictures that are drawn, each by itself: no picture is on both sides, and what is held
    out of one set of pairs on the same pictures is of another, too. Raises StageError where one
    side is left with none."""
    trained: list[Preference] = []
    held: list[Preference] = []
    for one in preferences:
        drawn = seed_for(seed, "held_out", one.picture) < share * 2**63
        (held if drawn else trained).append(one)
    if share and not (trained and held):
        side = "trained on" if held else "held out"
        pictures = len({one.picture for one in preferences})
        raise StageError(
            f"dpo.held_out={share:g}: of {pictures} pictures none is left to be {side}. Take "
            f"{'less' if held else 'more'}, more samples, or 0."
        )
    return trained, [one for one in held if one.id == one.sample]


def is_due(step: int, steps: int) -> bool:
    """Whether they are scored after this step (from 1) of so many."""
    return step in (1, steps) or step * TIMES // steps > (step - 1) * TIMES // steps


@dataclass(frozen=True)
class HeldOut:
    """The preferences that a trainer scores beside its steps, and what makes batches of them."""

    preferences: Sequence[Preference]
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def batches(self, size: int, rank: int, ranks: int) -> Iterator[tuple[Any, bool]]:
        """This rank's micro-batches, in the preferences' own order; and whether one counts, or only
        fills up, as in a step."""
        order = InOrder([p.id for p in self.preferences], 0)
        for rows in StepBatches(order, size, len(order), rank, ranks):
            yield self.collate([{"row": max(i, ~i)} for i in rows]), rows[0] >= 0

    @property
    def count(self) -> Counter[str]:
        """The number of each unit that losses are means over."""
        pairs = sum(len(one.rejected) for one in self.preferences)
        return Counter(preferences=len(self.preferences), pairs=pairs)


class InOrder(SeededOrder):
    """The rows as they are."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


@contextmanager
def beside(trainer: TrlTrainer) -> Iterator[None]:
    """Inside the block the trainer's metrics are those of the block alone, there are no gradients,
    and afterwards its metrics and tokens are as before."""
    before, tokens = dict(trainer.metrics), trainer.tokens_seen
    trainer.metrics.clear()
    try:
        with torch.no_grad(), trainer.compute_loss_context_manager():
            yield
        share_out_again(trainer.model)
    finally:
        trainer.tokens_seen = tokens
        trainer.metrics.clear()
        trainer.metrics.update(before)


def told(metrics: dict[str, float]) -> dict[str, float]:
    """Those that are told, under their names."""
    kept = {n: v for n, v in metrics.items() if n in KEPT or n.startswith(KEPT[1:])}
    return {HELD_OUT + name: value for name, value in kept.items()}
