"""SeVa's diffusion noise on the normalised pixel values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from seva_exp.augment.base import PixelAugmentation

if TYPE_CHECKING:
    import torch

STEPS = 1000
BETA_LOW, BETA_HIGH = 1e-5, 0.5e-2
LOGIT = 6.0
"""The schedule is a sigmoid over [-LOGIT, LOGIT]."""


def alpha_bar(step: int) -> float:
    """The share of the signal's variance that is left at ``step``: prod over i <= step of
    (1 - beta_i), beta = sigmoid(linspace(-6, 6, 1000)) * (0.5e-2 - 1e-5) + 1e-5."""
    product = 1.0
    for i in range(step + 1):
        logit = -LOGIT + 2 * LOGIT * i / (STEPS - 1)
        product *= 1.0 - BETA_LOW - (BETA_HIGH - BETA_LOW) / (1.0 + math.exp(-logit))
    return product


class DiffusionNoise(PixelAugmentation):
    """The forward process of a diffusion model, as in SeVa (its released code; schedule
    of VCD, arXiv:2311.16922): ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps``, eps ~ N(0, 1).

    Works in the model's own normalised space, so padding inside a picture is noised too.
    """

    kind: Literal["diffusion_noise"] = "diffusion_noise"
    image_twin: ClassVar[str] = "diffusion_noise_image"
    step: int = Field(
        500,
        ge=0,
        le=STEPS - 1,
        description="time step t, 0 (almost clean) .. 999; SeVa: 500, and 800 for a second set",
    )

    @property
    def strength(self) -> float:
        """The time step."""
        return float(self.step)

    def coefficients(self) -> tuple[float, float]:
        """(sqrt(abar_t), sqrt(1 - abar_t)): the factors of the picture and of the noise."""
        kept = alpha_bar(self.step)
        return math.sqrt(kept), math.sqrt(1.0 - kept)

    def __call__(self, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """``x`` float32 of any shape, ``rng`` on the CPU; gives the same shape, type, device."""
        import torch

        signal, noise = self.coefficients()
        eps = torch.randn(x.shape, generator=rng, dtype=torch.float32)
        return (signal * x + noise * eps.to(x.device)).to(x.dtype)
