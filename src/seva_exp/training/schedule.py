"""What a training is going to do: its steps and the learning rate's way, before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from seva_exp.training.spec import Training


@dataclass(frozen=True)
class Schedule:
    """Optimizer ``steps``; over the first ``warmup`` of them the learning rate rises from 0, which
    the very first has; ``peak`` is the largest that a step has."""

    steps: int
    warmup: int
    peak: float

    @classmethod
    def of(cls, spec: Training, rows: int) -> Self:
        """For so many rows. As transformers' schedules have it: a share of the steps, rounded up,
        and the k-th step (from 0) of w warm-up steps has k / w of the rate."""
        steps = math.ceil(rows / spec.batch_size) * spec.epochs
        warmup = math.ceil(steps * spec.warmup_ratio)
        share = 1.0 if steps > warmup else (steps - 1) / warmup
        return cls(steps, warmup, spec.learning_rate * share)

    def __str__(self) -> str:
        several = "step" if self.steps == 1 else "steps"
        return f"{self.steps} {several}, {self.warmup} of warm-up, peak rate {self.peak:.3g}"

    def refusal(self, stage: str, group: str, spec: Training, rows: int) -> str:
        """What is told where no step has a rate above 0."""
        return (
            f"{stage}: {rows} rows make {self.steps} step with {group}.batch_size="
            f"{spec.batch_size}, and with {group}.warmup_ratio={spec.warmup_ratio:g} its learning "
            f"rate is 0: nothing would be learnt. Take {group}.warmup_ratio=0, more samples, "
            f"{group}.epochs=2 or a smaller {group}.batch_size."
        )
