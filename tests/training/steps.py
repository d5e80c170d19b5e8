"""One training step on the shared row and on plain rows, to be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from seva_exp.models.vlm import Vlm
from seva_exp.training import DpoTraining
from seva_exp.training.collate import Preference
from seva_exp.training.dpo import PreferenceTrainer, trainer_for

from .tools import placement


@dataclass
class Step:
    """What one step did: loss, gradients by name, logged metrics, and which way was taken."""

    loss: float
    gradients: dict[str, torch.Tensor]
    metrics: dict[str, list[float]]
    said: str


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
    """A trainer as at its first step, the policy moved."""
    place = placement(work, gradient_checkpointing=checkpointing, train_batch_size=len(preferences))
    trainer = trainer_for(vlm, preferences, spec, place, 0)
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
    loss = trainer.compute_loss(trainer.model, batches[0])
    loss.backward()
    trainer.forward.close()
    named = trainer.model.named_parameters()
    gradients = {name: p.grad for name, p in named if p.grad is not None}
    return Step(loss.item(), gradients, dict(trainer._metrics["train"]), trainer.forward.said)


def assert_equal(fast: Step, plain: Step) -> None:
    """Loss to 1e-5, every gradient to 1e-4 (relative), metrics to rounding."""
    assert fast.said == "shared row"
    assert plain.said == "plain rows"
    assert abs(fast.loss - plain.loss) <= 1e-5 * abs(plain.loss), (fast.loss, plain.loss)
    assert fast.gradients.keys() == plain.gradients.keys()
    assert plain.gradients
    for name, expected in plain.gradients.items():
        far = (fast.gradients[name] - expected).norm() / expected.norm()
        assert far <= 1e-4, (name, far.item())
    assert fast.metrics.keys() == plain.metrics.keys()
    for name, values in plain.metrics.items():
        for one, other in zip(fast.metrics[name], values, strict=True):
            assert abs(one - other) <= 1e-4 * max(1.0, abs(other)), name
