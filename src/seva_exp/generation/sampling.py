"""Sampled decoding that depends on no batch: every answer has a random generator of its own.

The Gumbel-max trick (Gumbel 1954; Maddison et al. 2014): argmax(logits / T + G) with independent
standard Gumbel noise G is a draw from softmax(logits / T). The model decodes greedily, the noise is
added by a logits processor, so that a row's draws are its own.

Shape legend: B rows of a batch, L tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from seva_exp.randomness import torch_rng

SMALLEST = 2.0**-25
"""Half a step of float32's uniform numbers: stands for 0, whose noise would be -inf."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn (temperature > 0, top_p in (0, 1]), and from which random numbers: those
    of (``seed``, ``purpose``, request's id). Two views of one sample need two purposes."""

    temperature: float
    top_p: float
    seed: int
    purpose: str

    def processors(self, ids: Sequence[str]) -> LogitsProcessorList:
        """For one ``generate`` call with ``do_sample=False``; ``ids`` are its rows' requests."""
        return self._steps([self.generator(id) for id in ids])

    def generator(self, id: str) -> torch.Generator:
        """One request's, from its beginning."""
        return torch_rng(self.seed, self.purpose, id)

    def scores(self, scores: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Scores [B, V] whose largest are the drawn tokens; each row's generator moves on."""
        for step in self._steps(generators):
            scores = step(None, scores)
        return scores

    def _steps(self, generators: Sequence[torch.Generator]) -> LogitsProcessorList:
        steps = LogitsProcessorList([_Temperature(self.temperature)])
        if self.top_p < 1:
            steps.append(TopPLogitsWarper(top_p=self.top_p))
        steps.append(_Gumbel(generators))
        return steps


class _Temperature(LogitsProcessor):
    """Scores [B, V] (float32 from ``generate``, whatever the model's format) over T, the largest
    moved to 0, so that a small T does not overflow."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return (scores - scores.amax(dim=-1, keepdim=True)) / self._temperature


class _Gumbel(LogitsProcessor):
    """Adds noise to scores [B, V]: at step t, row b's are the t-th V numbers of its generator,
    drawn on the CPU, so they are the same on any device. Excluded tokens stay at -inf."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        size = scores.shape[-1]
        drawn = torch.stack([torch.rand(size, generator=rng) for rng in self._generators])
        uniform = drawn.clamp_(min=SMALLEST).to(scores.device)
        return scores - torch.log(-torch.log(uniform))
