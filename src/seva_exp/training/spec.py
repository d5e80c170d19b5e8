"""How the model is aligned. No heavy import."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from seva_exp.spec import Spec

Loss = Literal["sigmoid", "hinge", "ipo"]
Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class DpoTraining(Spec):
    """Direct preference optimization (Rafailov et al. 2023, eq. 7) of a LoRA adapter on the
    language model, by TRL's DPOTrainer. Log-probabilities are summed over the answer's tokens."""

    loss: Loss = "sigmoid"
    """TRL's name of the loss: ``sigmoid`` is DPO; ``hinge`` SLiC; ``ipo`` IPO."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference model."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    epochs: int = Field(1, ge=1)
    """Passes over the pairs."""
    batch_size: int = Field(16, ge=1)
    """Pairs per optimizer step, over all devices and accumulation steps."""
    lora_rank: int = Field(32, ge=1)
    """LoRA's r."""
    lora_alpha: int = Field(64, ge=1)
    """LoRA's alpha; the update is scaled by alpha / r."""
    lora_modules: tuple[Module, ...] = ()
    """Which projections of the language model get LoRA; none means every linear layer."""

    def loss_at_start(self) -> float:
        """The loss while policy and reference are the same model: its margin is exactly 0."""
        return {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 1 / (4 * self.beta**2)}[self.loss]
