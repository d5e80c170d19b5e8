"""One training step on the packed sequence and on plain rows, to be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from seva_exp.models.vlm import Vlm
from seva_exp.training import DpoTraining
from seva_exp.training.collate import OWNERS, Preference, PreferenceCollator
from seva_exp.training.dpo import PreferenceTrainer, trainer_for
from seva_exp.training.trl_private import pair_loss

from .tools import job, placement

OWN = {"lengths/chosen", "lengths/rejected", "kl_k1/chosen", "num_tokens"}
"""Metrics that stock TRL lacks, or counts otherwise."""


@dataclass
class Step:
    """What one step did: loss, gradients by name, logged metrics, and which way was taken."""

    loss: float
    gradients: dict[str, torch.Tensor]
    metrics: dict[str, list[float]]
    description: str


def moved(trainer: PreferenceTrainer) -> None:
    """The policy leaves the reference, so that the comparison means something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.05 * noise)


def prepared(
    vlm: Vlm,
    preferences: Sequence[Preference],
    spec: DpoTraining,
    work: Path,
    checkpointing: bool = False,
    **changes: int,
) -> PreferenceTrainer:
    """A trainer as at its first step, the policy moved; all preferences are one micro-batch."""
    size = len(preferences)
    spec = spec.model_copy(update={"batch_size": size})
    changes = {"gradient_checkpointing": checkpointing, "train_batch_size": size, **changes}
    place = placement(work, **changes)
    trainer = trainer_for(job(vlm, spec, place), preferences)
    moved(trainer)
    trainer._starts_equal = False
    trainer.model.train()
    if checkpointing:
        options = {"use_reentrant": False}
        trainer.model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    return trainer


def step(
    load: Callable[[], Vlm],
    preferences: Callable[[Vlm], Sequence[Preference]],
    spec: DpoTraining,
    work: Path,
    checkpointing: bool = False,
    **changes: int,
) -> Step:
    """The first step of all preferences at once."""
    vlm = load()
    trainer = prepared(vlm, preferences(vlm), spec, work, checkpointing, **changes)
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    [batch] = batches
    assert trainer.count(batch)["preferences"] == len(trainer.order)
    loss = trainer.compute_loss(trainer.model, batch)
    return _step(trainer, loss, trainer.forward.description)


def stock_step(
    load: Callable[[], Vlm],
    preferences: Callable[[Vlm], Sequence[Preference]],
    spec: DpoTraining,
    work: Path,
    checkpointing: bool = False,
) -> Step:
    """The same by TRL alone: the DPOTrainer's own loss, which runs policy and reference itself, on
    a row of TRL's for each pair."""
    vlm = load()
    rows = preferences(vlm)
    off = spec.model_copy(update={"fast": "off"})
    trainer = prepared(vlm, rows, off, work, checkpointing)
    pairs = [replace(row, rejected=(ids,)) for row in rows for ids in row.rejected]
    batch = PreferenceCollator(vlm, pairs)([{"row": i} for i in range(len(pairs))])
    trainer.precompute_ref_logps = False
    inputs = {key: value for key, value in batch.items() if key not in OWNERS}
    loss = pair_loss(trainer, trainer.model, inputs)
    made = _step(trainer, loss, "stock")
    del made.metrics["num_tokens"]  # it repeats the chosen answer for each rejected one
    return made


def _step(trainer: PreferenceTrainer, loss: torch.Tensor, said: str) -> Step:
    loss.backward()
    trainer.forward.close()
    named = trainer.model.named_parameters()
    gradients = {name: p.grad for name, p in named if p.grad is not None}
    return Step(loss.item(), gradients, dict(trainer.metrics), said)


def assert_equal(fast: Step, plain: Step) -> None:
    """Loss to 1e-5, every gradient to 1e-4 (relative), metrics to rounding."""
    assert fast.description == "packed sequence"
    assert plain.description in ("plain rows", "stock")
    assert abs(fast.loss - plain.loss) <= 1e-5 * abs(plain.loss), (fast.loss, plain.loss)
    assert fast.gradients.keys() == plain.gradients.keys()
    assert plain.gradients
    for name, expected in plain.gradients.items():
        far = (fast.gradients[name] - expected).norm() / expected.norm()
        assert far <= 1e-4, (name, far.item())
    assert fast.metrics.keys() == plain.metrics.keys() | (
        OWN if plain.description == "stock" else set()
    )
    for name, values in plain.metrics.items():
        for one, other in zip(fast.metrics[name], values, strict=True):
            assert abs(one - other) <= 1e-4 * max(1.0, abs(other)), name
