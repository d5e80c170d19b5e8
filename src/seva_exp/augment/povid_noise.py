"""POVID's rejected answers of a noised picture: token by token, without decoding."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.augment.base import Rewrite
from seva_exp.augment.diffusion_noise import STEPS, DiffusionNoise


class PovidNoise(Rewrite):
    """In place of each token of the clean answer the likeliest one under the noised picture, behind
    the clean answer's own tokens (POVID, arXiv:2402.11411, its second stage): one forward pass an
    answer, by the model as the round begins.

    The noise is that of the view ``diffusion_noise`` with the same step and seed. Where the
    likeliest token is the answer's own everywhere, there is no rejected answer.
    """

    kind: Literal["povid_noise"] = "povid_noise"
    gives: ClassVar[frozenset[str]] = frozenset({"images"})
    step: int = Field(
        500, ge=0, le=STEPS - 1, description="time step of the noise, 0 .. 999; POVID: 500"
    )

    @property
    def strength(self) -> float:
        return float(self.step)

    @property
    def shown(self) -> DiffusionNoise:
        return DiffusionNoise(step=self.step)
