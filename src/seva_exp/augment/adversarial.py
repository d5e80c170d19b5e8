"""A picture changed so that the model believes its own answer less."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from seva_exp.augment.base import Source, Space

if TYPE_CHECKING:
    import torch


class Adversarial(Source):
    """Projected gradient steps (PGD, arXiv:1706.06083) on the pixels that the model sees: d <- the
    projection of d - s sign(grad_d log p(chosen | picture + d)) on |d| <= eps in every value, and
    on pictures. AdPO (arXiv:2504.01735) makes adversarial pictures so. The chosen answer is the
    model's own, to the clean picture: a stage finds d when it is there.

    d, eps and s are whole steps of 1/255 of the picture that leaves the processor, so that the
    bound is kept exactly; d is kept as such, not as a picture.
    """

    space: ClassVar[Space] = "pixels"
    learned: ClassVar[bool] = True
    kind: Literal["adversarial"] = "adversarial"
    eps: int = Field(8, ge=1, le=127, description="largest change of a value, in 1/255")
    steps: int = Field(10, ge=1, le=1000, description="gradient steps; each is a pass and back")
    step_size: int = Field(2, ge=1, le=127, description="change by one step, in 1/255")

    @model_validator(mode="after")
    def _a_step_is_within_reach(self) -> Adversarial:
        if self.step_size > 2 * self.eps:
            raise ValueError(
                f"step_size={self.step_size} is more than from one end of [-eps, eps] to the other "
                f"(eps={self.eps}). Take a smaller one"
            )
        return self

    @property
    def strength(self) -> float:
        """``eps``."""
        return float(self.eps)

    def change(self, folder: Path, sample_id: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """What puts the kept d of a sample on its normalised values; a sample that has none keeps
        its picture."""
        import numpy
        import torch

        file = folder / file_of(sample_id)
        if not file.exists():
            return lambda values: values
        with numpy.load(file) as found:
            delta, std = (torch.from_numpy(found[name]) for name in ("delta", "std"))
        return lambda values: values + delta.float() / (255 * std[:, None, None])


def file_of(sample_id: str) -> str:
    """The name of the file with a sample's d."""
    return f"deltas/{sha256(sample_id.encode()).hexdigest()[:32]}.npz"
