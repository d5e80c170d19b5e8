"""Supervised fine-tuning on given responses (STIC's stage 2): TRL's SFTTrainer on our batches.

Shape legend: B examples, L tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from trl import SFTConfig, SFTTrainer

from seva_exp.core.records import Sample
from seva_exp.core.spec import Json
from seva_exp.training.arguments import OneDevice, on_its_device, shared_arguments, vision_rows
from seva_exp.training.batches import SeededOrder
from seva_exp.training.collate import IGNORED, ExampleCollator, FinetuneExample
from seva_exp.training.driver import TrainingJob, train_stage
from seva_exp.training.lora import (
    POLICY,
    config_of,
    load_adapter,
    lora_config,
)
from seva_exp.training.peft_private import projectors
from seva_exp.training.precision import keep_in_float32
from seva_exp.training.preferences import examples_of
from seva_exp.training.sharding import share_out
from seva_exp.training.spec import SftTraining
from seva_exp.training.steps import StepTrainer


class SftArguments(OneDevice, SFTConfig):
    """TRL's, for a process with a device of its own."""


class ResponseTrainer(StepTrainer, SFTTrainer):
    """TRL's trainer; the loss is the mean over the response tokens of the whole step."""

    stage: ClassVar[str] = "finetune"
    group: ClassVar[str] = "sft"
    units: ClassVar[dict[str, str]] = {"entropy": "tokens", "mean_token_accuracy": "tokens"}
    loss_is_scaled_for_ga = True  # each micro-batch's sum is divided by the step's tokens

    def count(self, batch: Any) -> Counter[str]:
        return Counter(tokens=int((batch["labels"][:, 1:] != IGNORED).sum()))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """TRL's loss over the tokens that we counted (the Trainer counts for some families only)"""
        self._seen.append(self.count(inputs))
        with self.on_this_rank():
            loss = super().compute_loss(model, inputs, return_outputs, self._step["tokens"])
        return loss * 0 if self._filler else loss


def trainer_for(
    job: TrainingJob[SftTraining], examples: Sequence[FinetuneExample]
) -> ResponseTrainer:
    """The trainer with the adapter in place. A projector that ``job.start`` holds is kept, and
    stays as it is if none is to be trained."""
    vlm, spec, start = job.vlm, job.spec, job.start
    trainer = ResponseTrainer(
        order=SeededOrder([example.id for example in examples], job.seed),
        batch_size=spec.batch_size,
        projector_rate=spec.projector_learning_rate,
        model=vlm.model,
        peft_config=config_of(start, vlm, spec) if start else lora_config(vlm, spec, "sft"),
        args=on_its_device(
            SftArguments, job.placement, **shared_arguments(spec, job.placement, job.seed)
        ),
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
    return trainer


def fine_tune(job: TrainingJob[SftTraining], samples: Sequence[Sample], root: Path) -> Json:
    """Train on the responses of samples whose pictures lie in ``root``; write ``adapter/``,
    ``metrics.jsonl``; return the counts, first and last numbers.

    Raises StageError for a sample without a response, and when a number is not finite.
    """
    examples = examples_of(job.vlm, samples, root)
    last = {"token_accuracy_last": "mean_token_accuracy"}
    made = train_stage(job, examples, trainer_for, ResponseTrainer.stage, last)
    return {"samples": len(examples), **made}
