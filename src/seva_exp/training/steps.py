"""What every training shares: row order, steps that do not depend on how they are cut into
micro-batches, two learning rates, the log, the run itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from seva_exp.errors import StageError
from seva_exp.interfaces import Placement
from seva_exp.randomness import seed_for
from seva_exp.spec import Json

OnStep = Callable[[int, Json], None]
COPY = ".modules_to_save."
"""Part of the name of each parameter that PEFT trains as a whole: here, the projector's."""


class SeededOrder(Sampler[int]):
    """Row order that depends on (seed, epoch, row id) alone: a dropped row moves no other."""

    def __init__(self, ids: Sequence[str], seed: int) -> None:
        self._ids = ids
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        purpose = f"order/{self._epoch}"
        return iter(
            sorted(range(len(self._ids)), key=lambda i: seed_for(self._seed, purpose, self._ids[i]))
        )

    def __len__(self) -> int:
        return len(self._ids)


class StepTrainer(Trainer):
    """A trainer with our row order, whose steps do not depend on their micro-batches.

    The Trainer averages the means of a step's micro-batches; micro-batches differ in size, so that
    the members of a small one would weigh more. So each micro-batch's loss is weighed by its share
    of the step: of its pairs, preferences or tokens, whatever the loss is a mean over.
    """

    unit = ""
    """What the metrics are means over (a key of ``count``)."""

    def __init__(self, *, order: SeededOrder, projector_rate: float | None, **options: Any) -> None:
        self._order = order
        self._projector_rate = projector_rate
        self._micro_batches = 1
        self._step: Counter[str] = Counter()
        self._seen: list[Counter[str]] = []
        super().__init__(**options)

    def count(self, batch: Any) -> Counter[str]:
        """How many of each unit a batch holds."""
        raise NotImplementedError

    def unit_of(self, metric: str) -> str:
        """What a logged number is the mean over."""
        return self.unit

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        return self._order

    def get_batch_samples(self, *args: Any, **options: Any) -> Any:
        """The micro-batches of one optimizer step; what they hold is counted."""
        batches, items = super().get_batch_samples(*args, **options)
        self._micro_batches = len(batches)
        self._step = sum((self.count(batch) for batch in batches), Counter())
        return batches, items

    def share(self, unit: str) -> float:
        """The weight of the latest micro-batch's mean over ``unit``: the Trainer divides the sum
        by the number of micro-batches."""
        return self._seen[-1][unit] * self._micro_batches / self._step[unit]

    def create_optimizer(self, model: Any = None) -> Any:
        """The Trainer's AdamW; the projector gets its own learning rate where it has one."""
        optimizer = super().create_optimizer(model)
        if self._projector_rate is not None:
            names = {id(p): name for name, p in self.model.named_parameters()}
            for group in list(optimizer.param_groups):
                copied = [p for p in group["params"] if COPY in names[id(p)]]
                rest = [p for p in group["params"] if COPY not in names[id(p)]]
                group["params"] = rest
                own = {**group, "params": copied, "lr": self._projector_rate}
                optimizer.add_param_group(own)
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's metrics, each micro-batch weighed by its share."""
        for name, values in self._metrics["train"].items():
            if len(values) == len(self._seen):
                sizes = [counts[self.unit_of(name)] for counts in self._seen]
                total = sum(v * size for v, size in zip(values, sizes, strict=True))
                values[:] = [total / sum(sizes)]
        self._seen.clear()
        super().log(logs, start_time)


class StepLog(TrainerCallback):
    """Hands every logged step on, and stops the stage when a number is not one."""

    def __init__(self, label: str, group: str, on_step: OnStep) -> None:
        self._label = label
        self._group = group
        self._on_step = on_step
        self.rows: list[Json] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Called by the trainer after each logged step."""
        if "loss" not in logs:
            return
        row = {"step": state.global_step, **_numbers(logs)}
        for name, value in row.items():
            if not math.isfinite(value):
                raise StageError(
                    f"{self._label}: {name} is {value} at step {row['step']}. "
                    f"Lower {self._group}.learning_rate, or use machine.dtype=float32."
                )
        self.rows.append(row)
        self._on_step(state.global_step, row)


def _numbers(logs: Json) -> Json:
    """The logged values under field-standard names, in a fixed order."""
    values = {name: float(value) for name, value in logs.items() if _is_number(value)}
    return dict(sorted(values.items()))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def run(trainer: Trainer, log: StepLog, label: str, steps: int, placement: Placement) -> None:
    """Train. Our own progress bar and log take the place of the trainer's."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(log)
    with placement.progress(label, steps, "step") as bar:
        trainer.add_callback(_Bar(bar))
        trainer.train()


class _Bar(TrainerCallback):
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update(1)
