"""Supervised fine-tuning on given responses (STIC's stage 2): TRL's SFTTrainer on our batches.

Shape legend: B examples, L tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from trl import SFTConfig, SFTTrainer

from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.records import Sample
from seva_exp.core.spec import Json
from seva_exp.training.align import left_behind
from seva_exp.training.arguments import OneDevice, on_its_device, shared_arguments, vision_rows
from seva_exp.training.batches import SeededOrder
from seva_exp.training.collate import IGNORED, ExampleCollator
from seva_exp.training.lengths import check_lengths
from seva_exp.training.lora import (
    POLICY,
    config_of,
    load_adapter,
    lora_config,
    save_adapter,
)
from seva_exp.training.precision import keep_in_float32, projectors
from seva_exp.training.preferences import examples_of
from seva_exp.training.sharding import share_out
from seva_exp.training.spec import SftTraining
from seva_exp.training.steps import OnStep, StepLog, StepTrainer, run
from seva_exp.training.throughput import summary as throughput


class SftArguments(OneDevice, SFTConfig):
    """TRL's, for a process with a device of its own."""


class ResponseTrainer(StepTrainer, SFTTrainer):
    """TRL's trainer; the loss is the mean over the response tokens of the whole step."""

    unit = "tokens"
    loss_is_scaled_for_ga = True  # each micro-batch's sum is divided by the step's tokens

    def count(self, batch: Any) -> Counter[str]:
        return Counter(tokens=int((batch["labels"][:, 1:] != IGNORED).sum()))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """TRL's loss over the tokens that we counted (the Trainer counts for some families only)"""
        self._seen.append(self.count(inputs))
        loss = super().compute_loss(model, inputs, return_outputs, self._step["tokens"])
        return loss * 0 if self._filler else loss


def fine_tune(
    vlm: VisionLanguageModel,
    samples: Sequence[Sample],
    root: Path,
    spec: SftTraining,
    placement: Placement,
    seed: int,
    base_name: str,
    on_step: OnStep,
    *,
    start: Path | None = None,
) -> Json:
    """Train on the samples' responses; write ``adapter/``, ``metrics.jsonl``; return the first and
    last numbers.

    ``vlm`` is the base model; training goes on with the adapter in ``start``, or with a new one.
    A projector that ``start`` holds is kept, and stays as it is if none is to be trained. Raises
    StageError for a sample without a response, and when a number is not finite.
    """
    examples = examples_of(vlm, samples, root)
    lengths = check_lengths(vlm, examples, "finetune")
    trainer = ResponseTrainer(
        order=SeededOrder([example.id for example in examples], seed),
        batch_size=spec.batch_size,
        projector_rate=spec.projector_learning_rate,
        model=vlm.model,
        peft_config=config_of(start, vlm, spec) if start else lora_config(vlm, spec, "sft"),
        args=on_its_device(SftArguments, placement, **shared_arguments(spec, placement, seed)),
        train_dataset=vision_rows(len(examples)),
        processing_class=vlm.processor,
        data_collator=ExampleCollator(vlm, examples),
    )
    keep_in_float32(trainer.model)
    if start is not None:
        load_adapter(trainer.model, start, POLICY)
    if not spec.train_projector:
        for module in projectors(trainer.model):
            module.requires_grad_(False)
    share_out(vlm, trainer.accelerator)
    log = StepLog("finetune", "sft", on_step)
    steps = math.ceil(len(examples) / spec.batch_size) * spec.epochs
    run(trainer, log, "finetune", steps, placement)
    folder = placement.work / "adapter"
    save_adapter(trainer.model, folder, base_name)
    return {
        "samples": len(examples),
        "steps": len(log.rows),
        "loss_first": log.rows[0]["loss"],
        "loss_last": log.rows[-1]["loss"],
        "token_accuracy_last": log.rows[-1].get("mean_token_accuracy"),
        **lengths,
        **throughput(placement.work),
        "adapter": left_behind(placement.work, folder, base_name, log.rows),
    }
