"""The private hooks of transformers' Trainer that a training overrides, here alone, each under a
name of ours. ``tests/training/test_private.py`` tells when transformers moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from transformers import Trainer


class HookedTrainer(Trainer, ABC):
    """A Trainer that says when a batch goes to its device, and when a checkpoint is read or was
    written. The Trainer has no public hook before or around these."""

    @abstractmethod
    def placed(self, inputs: Any) -> Any:
        """A batch on the device: the Trainer's own would leave what is no tensor on the CPU."""

    @abstractmethod
    def saved(self, checkpoint: Path) -> None:
        """The Trainer has written this checkpoint; every rank is told."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write what a checkpoint holds of the model; every rank is told."""

    @abstractmethod
    def read(self, folder: Path) -> None:
        """Read what ``write`` wrote."""

    def _prepare_inputs(self, inputs: Any) -> Any:
        return super()._prepare_inputs(self.placed(inputs))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)  # TRL's would add a model card
        self.saved(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        self.write(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.read(Path(resume_from_checkpoint))
