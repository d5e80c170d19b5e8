"""The align stage's work: TRL's DPOTrainer with a LoRA adapter on the language model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from seva_exp.errors import StageError
from seva_exp.interfaces import Placement, VisionLanguageModel
from seva_exp.randomness import seed_for
from seva_exp.spec import Json
from seva_exp.training.collate import Preference, PreferenceCollator
from seva_exp.training.spec import DpoTraining

START_TOLERANCE = 1e-3


class SeededOrder(Sampler[int]):
    """Row order that depends on (seed, epoch, sample id) alone: a dropped pair moves no other."""

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


class PreferenceTrainer(DPOTrainer):
    """TRL's trainer with our row order, and with each pair of a step weighed alike.

    The Trainer averages the means of a step's micro-batches; the last step of an epoch may have a
    shorter one, whose pairs would weigh more. So each micro-batch's loss is weighed by its share
    of the step's pairs: the result does not depend on ``machine.train_batch_size``.
    """

    def __init__(self, *, order: SeededOrder, **options: Any) -> None:
        self._order = order
        self._micro_batches, self._pairs = 1, 0
        self._sizes: list[int] = []
        super().__init__(**options)

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        return self._order

    def get_batch_samples(self, *args: Any, **options: Any) -> Any:
        """The micro-batches of one optimizer step; their number and sizes are kept."""
        batches, items = super().get_batch_samples(*args, **options)
        self._micro_batches = len(batches)
        self._pairs = sum(_pairs_of(batch) for batch in batches)
        return batches, items

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        """TRL's loss times this micro-batch's share of the step's pairs."""
        size = _pairs_of(inputs)
        self._sizes.append(size)
        share = size * self._micro_batches / self._pairs
        return super().compute_loss(model, inputs, *args, **options) * share

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's metrics, each micro-batch weighed by its pairs."""
        for values in self._metrics["train"].values():
            if len(values) == len(self._sizes):
                pairs = zip(values, self._sizes, strict=True)
                values[:] = [sum(value * size for value, size in pairs) / sum(self._sizes)]
        self._sizes.clear()
        super().log(logs, start_time)


def _pairs_of(batch: Any) -> int:
    return len(batch["input_ids"]) // 2


class StepLog(TrainerCallback):
    """Hands every logged step on, and stops the stage when the numbers cannot be right."""

    def __init__(self, spec: DpoTraining, on_step: Callable[[int, Json], None]) -> None:
        self._spec = spec
        self._on_step = on_step
        self.rows: list[Json] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Called by the trainer after each logged step."""
        if "loss" not in logs:
            return
        row = {"step": state.global_step, **_numbers(logs)}
        self._check(row)
        self.rows.append(row)
        self._on_step(state.global_step, row)

    def _check(self, row: Json) -> None:
        for name, value in row.items():
            if not math.isfinite(value):
                raise StageError(
                    f"align: {name} is {value} at step {row['step']}. "
                    "Lower dpo.learning_rate, or use machine.dtype=float32."
                )
        start = self._spec.loss_at_start()
        if not self.rows and abs(row["loss"] - start) > START_TOLERANCE * max(1.0, start):
            raise StageError(
                f"align: the first loss is {row['loss']:.5f}, not {start:.5f}. Policy and "
                "reference differ before any training: the reference is wrong."
            )


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


def train(
    vlm: VisionLanguageModel,
    preferences: Sequence[Preference],
    spec: DpoTraining,
    placement: Placement,
    seed: int,
    base_name: str,
    on_step: Callable[[int, Json], None],
) -> tuple[Path, list[Json]]:
    """Train an adapter on the pairs; return its folder and the logged rows.

    Raises StageError when the first loss is not that of equal policy and reference, or a loss is
    not finite.
    """
    from datasets import Dataset

    # TRL tells a vision data set by its `image` column; the collator loads the picture itself.
    rows = [{"row": i, "image": i, "prompt": p.prompt} for i, p in enumerate(preferences)]
    steps = math.ceil(len(preferences) / spec.batch_size) * spec.epochs
    config = lora_config(vlm, spec)
    torch.manual_seed(seed_for(seed, "lora"))  # PEFT draws the adapter from the global state
    trainer = PreferenceTrainer(
        order=SeededOrder([p.id for p in preferences], seed),
        model=vlm.model,
        peft_config=config,  # so TRL's reference is the model with the adapter switched off
        args=trainer_arguments(spec, placement, seed),
        train_dataset=Dataset.from_list(rows),
        processing_class=vlm.processor,
        data_collator=PreferenceCollator(vlm, preferences),
    )
    _quiet(trainer)
    with placement.progress("align", steps, "step") as bar:
        log = StepLog(spec, _and_update(on_step, bar))
        trainer.add_callback(log)
        trainer.train()
    folder = placement.work / "adapter"
    trainer.model.peft_config["default"].base_model_name_or_path = base_name
    trainer.model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder, log.rows


def _and_update(on_step: Callable[[int, Json], None], bar: Any) -> Callable[[int, Json], None]:
    def both(step: int, row: Json) -> None:
        on_step(step, row)
        bar.update(1)

    return both


def _quiet(trainer: DPOTrainer) -> None:
    """Our own progress bar and log take the place of the trainer's."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def lora_config(vlm: VisionLanguageModel, spec: DpoTraining) -> LoraConfig:
    """LoRA on linear layers of the language model only (never the vision tower or projector)."""
    names = vlm.language_modules()
    if spec.lora_modules:
        names = [name for name in names if name.rsplit(".", 1)[-1] in spec.lora_modules]
    if not names:
        raise StageError(
            f"dpo.lora_modules={list(spec.lora_modules)}: this model has none of them."
        )
    return LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,
        lora_dropout=0.0,
        target_modules=names,
        task_type="CAUSAL_LM",
    )


def trainer_arguments(spec: DpoTraining, placement: Placement, seed: int) -> DPOConfig:
    """TRL's arguments: everything that could differ by machine or default is set here."""
    size = min(placement.train_batch_size, spec.batch_size)
    while spec.batch_size % size:
        size -= 1
    device = placement.device
    return DPOConfig(
        output_dir=str(placement.work / "trainer"),
        beta=spec.beta,
        loss_type=[spec.loss],
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.schedule,
        warmup_steps=spec.warmup_ratio,  # below 1 it is a share of all steps
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=spec.batch_size // size,
        activation_checkpointing=placement.gradient_checkpointing,
        max_length=None,  # truncation would cut image tokens
        bf16=False,  # the model's own dtype decides; no autocast
        fp16=False,
        use_cpu=device == "cpu",
        seed=seed_for(seed, "trainer") % 2**32,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=device.startswith("cuda"),
        disable_tqdm=True,
    )
