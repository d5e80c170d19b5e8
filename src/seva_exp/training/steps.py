"""What every training shares: steps that do not depend on how they are cut into micro-batches and
dealt to ranks, two learning rates, what is held out, checkpoints, the log."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerCallback

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import Placement
from seva_exp.core.spec import Json
from seva_exp.training.batches import SeededOrder, StepBatches
from seva_exp.training.checkpoints import distrust, finish
from seva_exp.training.held_out import HeldOut, beside, is_due, told
from seva_exp.training.lora import POLICY, load_adapter, write_adapter
from seva_exp.training.peft_private import COPY
from seva_exp.training.precision import mixed_precision
from seva_exp.training.prefetch import Prefetcher, ahead, on_device
from seva_exp.training.sharding import adapter_weights, local
from seva_exp.training.throughput import Throughput
from seva_exp.training.transformers_private import HookedTrainer
from seva_exp.training.trl_private import TOKENS, TrlTrainer

OnStep = Callable[[int, Json], None]
ROWS = "rows"
"""What a batch holds besides its tensors until it is weighed: its row numbers."""
FIRST = ("loss", "grad_norm")
"""Of several numbers that are none, the one to tell."""
ANEW = {"dpo": "force=[reference]", "sft": "force=[finetune]"}
"""What else is given to compute a training, and what it is held to, in another number format."""


class StepTrainer(HookedTrainer, TrlTrainer):
    """A trainer with our row order, whose steps do not depend on their micro-batches or on ranks.

    The Trainer averages the means of a step's micro-batches over accumulation and ranks;
    micro-batches differ in size, so that the members of a small one would weigh more. So each
    micro-batch's loss is weighed by its share of the step: of its pairs, preferences or tokens,
    whatever the loss is a mean over. A filler's share is 0.
    """

    stage: ClassVar[str]
    """The stage's name."""
    group: ClassVar[str]
    """The config group of its numbers."""
    units: ClassVar[dict[str, str]]
    """What each logged metric is the mean over (a key of ``count``), TRL's and ours."""

    def __init__(
        self, *, order: SeededOrder, batch_size: int, projector_rate: float | None, **options: Any
    ) -> None:
        self.order = order
        self._batch_size = batch_size
        self.step_rows: list[int] = []
        """Row numbers of the current optimizer step, of all ranks."""
        self.rows_before: list[int] = []
        """Those of the step before, since training began or went on."""
        self._projector_rate = projector_rate
        self._real: list[bool] = []
        self._filler = False
        self._parts = 1
        self._step: Counter[str] = Counter()
        self._seen: list[Counter[str]] = []
        self._ahead: Prefetcher | None = None
        self.held_out: HeldOut | None = None
        super().__init__(**options)

    @abstractmethod
    def count(self, batch: Any) -> Counter[str]:
        """The number of each unit in a batch."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the data."""
        return math.ceil(len(self.order) / self._batch_size)

    def unit_of(self, metric: str) -> str:
        """The unit that a logged number is the mean over. Raises StageError for one that is not
        known."""
        if metric not in self.units:
            raise StageError(
                f"{self.stage}: TRL logs a metric {metric!r} that this package does not know how "
                "to weigh. Install the version of trl that constraints.txt names."
            )
        return self.units[metric]

    def get_train_dataloader(self) -> DataLoader:
        """This rank's micro-batches, not accelerate's, which would fill up with rows that count."""
        args = self.args
        batches = StepBatches(
            self.order,
            args.per_device_train_batch_size,
            self._batch_size,
            args.process_index,
            args.world_size,
        )
        return DataLoader(
            _Rows(len(self.order)),
            batch_sampler=batches,
            collate_fn=self._collate,
            pin_memory=args.dataloader_pin_memory,
        )

    def _collate(self, rows: list[int]) -> Any:
        return {**self.data_collator([{"row": max(i, ~i)} for i in rows]), ROWS: rows}

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any) -> Any:
        """The micro-batches of one optimizer step; what they hold is counted over all ranks. With a
        GPU those of the next step are made ready while this one is computed."""
        if self._ahead is None or self._ahead.source is not epoch_iterator:
            self.close()
            depth = self.args.gradient_accumulation_steps
            self._ahead = ahead(epoch_iterator, self.args.device, depth)
        batches, items = super().get_batch_samples(self._ahead, *args)
        rows = [batch.pop(ROWS) for batch in batches]
        self._real = [numbers[0] >= 0 for numbers in rows]
        self._parts = len(rows) * self.args.world_size
        real = [(self.count(b), r) for b, r in zip(batches, rows, strict=True) if r[0] >= 0]
        everyone = self._of_all_ranks(real)
        self._step = sum((counts for counts, _ in everyone), Counter())
        self.rows_before = self.step_rows
        self.step_rows = [row for _, numbers in everyone for row in numbers]
        return batches, items

    def close(self) -> None:
        """Drop the batches that were made ready for a later step."""
        if self._ahead is not None:
            self._ahead.close()

    def leave(self) -> None:
        """After training: the model is left as it was but for what was trained."""
        self.close()

    def placed(self, inputs: Any) -> Any:
        """Also what is no tensor, such as a packed row."""
        return on_device(inputs, self.args.device)

    def compute_loss_context_manager(self) -> Any:
        """Around the forward pass and the loss."""
        return mixed_precision(self.args.device, self.model.dtype)

    def named(self, rows: Sequence[int]) -> str:
        """``(samples a, b)``"""
        return f"(samples {', '.join(str(self.order.ids[row]) for row in rows)})"

    def weights_are_finite(self) -> bool:
        """Of those that are trained, so far as they lie on this rank."""
        own = [local(p.detach()) for p in self.model.parameters() if p.requires_grad]
        return bool(torch.stack([weight.isfinite().all() for weight in own]).all())

    def _of_all_ranks(self, values: list[Any]) -> list[Any]:
        return gather_object(values) if self.args.world_size > 1 else values

    def share(self, unit: str) -> float:
        """The weight of the latest micro-batch's mean over ``unit``: the Trainer divides the sum
        by the number of micro-batches, and DDP by that of ranks."""
        if self._filler:
            return 0.0
        return self._seen[-1][unit] * self._parts / self._step[unit]

    def training_step(self, *args: Any, **options: Any) -> Any:
        """TRL's. A filler's tokens are not counted."""
        before = self.tokens_seen
        self._filler = not self._real[len(self._seen)]
        loss = super().training_step(*args, **options)
        if self._filler:
            self.tokens_seen = before
        return loss

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
        """TRL's metrics, each micro-batch of each rank weighed by its share."""
        metrics = self.metrics
        for name, (total, count) in self._sums().items():
            metrics[name][:] = [total if name == TOKENS else total / (count or 1)]
        self._seen.clear()
        state = self.state
        if "loss" in logs and self.held_out and is_due(state.global_step, state.max_steps):
            logs = logs | self._score(self.held_out)
        super().log(logs, start_time)

    def _score(self, held: HeldOut) -> dict[str, float]:
        """Loss and metrics of what is held out, after the latest update, as those of one step."""
        of_step = self._step, self._parts, self._real
        self._step, self._parts, self._real = held.count, 1, []
        size, rank, ranks = (
            self.args.per_device_train_batch_size,
            self.args.process_index,
            self.args.world_size,
        )
        with beside(self):
            loss = 0.0
            for batch, real in held.batches(size, rank, ranks):
                self._filler = not real
                self._real.append(real)
                loss += self.compute_loss(self.model, self.placed(batch)).item()
            sums = self._sums()
        self._seen.clear()
        self._step, self._parts, self._real = of_step
        everyone = sum(self._of_all_ranks([loss]))
        return told({"loss": everyone, **{n: total / (of or 1) for n, (total, of) in sums.items()}})

    def _sums(self) -> dict[str, tuple[float, float]]:
        """Of each metric since the last log, over all ranks: the sum over its unit, and how many of
        the unit there were."""
        metrics = self.metrics
        if not metrics:
            return {}
        ranks = self._of_all_ranks([{n: self._weighed(n, v) for n, v in metrics.items()}])
        return {
            name: (sum(rank[name][0] for rank in ranks), sum(rank[name][1] for rank in ranks))
            for name in metrics
        }

    def _weighed(self, name: str, values: list[float]) -> tuple[float, float]:
        """This rank's sum of a metric over its unit, and how many of the unit it has."""
        if len(values) != len(self._seen) or name == TOKENS:
            return sum(values), len(values)
        unit = self.unit_of(name)
        sizes = [n[unit] * real for n, real in zip(self._seen, self._real, strict=True)]
        return sum(v * size for v, size in zip(values, sizes, strict=True)), sum(sizes)

    def continue_count(self, tokens: float) -> None:
        """Go on with TRL's count of tokens (which a checkpoint does not hold)."""
        self.tokens_seen = int(tokens) if self.args.process_index == 0 else 0

    def saved(self, checkpoint: Path) -> None:
        """Mark the checkpoint as whole."""
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            finish(checkpoint, self.model.dtype)

    def write(self, folder: Path) -> None:
        """Write the trained weights; rank 0 does."""
        weights = adapter_weights(self.model)
        if self.args.should_save:
            write_adapter(self.model, folder, weights)

    def read(self, folder: Path) -> None:
        """Read the trained weights."""
        load_adapter(self.model, folder, POLICY)


class _Rows(Dataset[int]):
    """The row numbers as they come, fillers included."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __getitem__(self, number: int) -> int:
        return number

    def __len__(self) -> int:
        return self._count


class StepLog(TrainerCallback):
    """Hands every logged step on, and stops the stage when a number is not one.

    ``rows`` depend on the key alone; what depends on the machine is only handed on, and kept by
    ``Throughput``. Training that goes on from a checkpoint hands the steps before it on again.
    """

    def __init__(self, label: str, group: str, on_step: OnStep) -> None:
        self._label = label
        self._group = group
        self._on_step = on_step
        self._trainer: StepTrainer | None = None
        self._throughput: Throughput | None = None
        self.rows: list[Json] = []

    def watch(self, trainer: StepTrainer, placement: Placement) -> None:
        """Tell the trainer's samples and its machine's numbers too."""
        trainer.add_callback(self)
        self._trainer = trainer
        self._throughput = Throughput(placement.work, placement.device)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The steps up to the checkpoint, if training goes on from one."""
        self.rows = [self._row(logs["step"], logs) for logs in state.log_history if "loss" in logs]
        for row in self.rows:
            self._on_step(row["step"], row)
        tokens = self.rows[-1][TOKENS] if self.rows else 0.0
        if self._trainer:
            self._trainer.continue_count(tokens)
        if self._throughput:
            self._throughput.start(tokens)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Called by the trainer after each step's update, before it saves a checkpoint."""
        if "loss" not in logs:
            return
        row = self._row(state.global_step, logs)
        wrong = [name for name, value in row.items() if not math.isfinite(value)]
        if wrong:
            if self._trainer and state.is_world_process_zero:
                distrust(Path(args.output_dir), row["step"] - 1)
            name = next((name for name in FIRST if name in wrong), wrong[0])
            raise StageError(self._not_finite(name, row[name], row["step"]))
        if self._trainer and not self._trainer.weights_are_finite():
            rows = self._trainer.named(self._trainer.step_rows)
            raise StageError(
                f"{self._label}: the weights are not finite after the update of step "
                f"{row['step']} {rows}. {self._advice()}"
            )
        self.rows.append(row)
        measured = self._throughput.step(row["step"], row[TOKENS]) if self._throughput else {}
        self._on_step(row["step"], row | measured)

    def _row(self, step: int, logs: Json) -> Json:
        """The logged values under field-standard names, in a fixed order. The Trainer's ``epoch``
        counts micro-batches, fillers too; here it is passes over the data by optimizer steps."""
        values = {name: float(value) for name, value in logs.items() if _is_number(value)}
        if self._trainer:
            done, rest = divmod(step - 1, self._trainer.steps_per_epoch)
            values["epoch"] = done + (rest + 1) / self._trainer.steps_per_epoch
        return {**dict(sorted(values.items())), "step": int(step)}

    def _not_finite(self, name: str, value: float, step: int) -> str:
        text = f"{self._label}: {name} is {value} at step {step}"
        if trainer := self._trainer:
            text += f" {trainer.named(trainer.step_rows)}"
            if before := trainer.rows_before:
                text += f", after the update of step {step - 1} {trainer.named(before)}"
        return f"{text}. {self._advice()}"

    def _advice(self) -> str:
        half = self._trainer is not None and self._trainer.model.dtype != torch.float32
        return (
            f"Lower {self._group}.learning_rate (that is another key, and begins anew), or look at "
            "these samples. The last checkpoint that a good step followed is kept: the same command"
            " goes on from it, to the same end."
            + (f" More digits: machine.dtype=float32 {ANEW[self._group]}." if half else "")
        )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
