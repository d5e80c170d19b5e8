"""TRL's private API, here alone: what of its trainers we read, call or stand in for, and why.
``tests/training/test_private.py`` tells when TRL moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import Trainer
from trl import DPOTrainer
from trl.trainer.utils import add_fused_lm_head, use_adapter
from trl.trainer.utils import maybe_gather_lm_head_ctx as whole_under_zero3

__all__ = [
    "TOKENS",
    "TrlTrainer",
    "add_fused_lm_head",
    "pair_loss",
    "use_adapter",
    "whole_under_zero3",
]
# add_fused_lm_head: the reference is scored by the head that TRL gives the policy.
# use_adapter: the reference, as TRL takes it: an adapter by name, or none.
# whole_under_zero3: DeepSpeed's weights gathered, as TRL gathers its head's.

TOKENS = "num_tokens"
"""TRL's count of all tokens seen so far: the one metric that is no mean."""


class TrlTrainer(Trainer):
    """The private state that TRL's trainers keep for their log."""

    accelerator: Any
    _metrics: dict[str, dict[str, list[float]]]
    _total_train_tokens: int

    @property
    def metrics(self) -> dict[str, list[float]]:
        """Name -> a value of each micro-batch since the last log (``TOKENS``: only the latest),
        which TRL's ``log`` averages without weights and clears: so weights must be put in before,
        and our own metrics belong here too."""
        return self._metrics["train"]

    @property
    def tokens_seen(self) -> int:
        """TRL's count of tokens, which fillers must not enter and no checkpoint holds."""
        return self._total_train_tokens

    @tokens_seen.setter
    def tokens_seen(self, count: int) -> None:
        self._total_train_tokens = count
        if TOKENS in self.metrics:
            self.metrics[TOKENS] = [count]

    @contextmanager
    def on_this_rank(self) -> Iterator[None]:
        """Around TRL's loss, which gathers its metrics over ranks in each micro-batch. That needs
        equally many rows on every rank; ours differ, and are gathered once a step."""
        whole = self.accelerator
        self.accelerator = OneRank(whole)
        try:
            yield
        finally:
            self.accelerator = whole


class OneRank:
    """An accelerator as a rank would see it that is alone: what it gathers is its own value."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def gather(self, value: Any) -> Any:
        return value

    def gather_for_metrics(self, value: Any) -> Any:
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)


def pair_loss(trainer: DPOTrainer, model: Any, inputs: dict[str, Any]) -> Tensor:
    """TRL's loss and metrics over the pairs of ``inputs``. Its public ``compute_loss`` is the one
    that we override, and calls this."""
    return DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
