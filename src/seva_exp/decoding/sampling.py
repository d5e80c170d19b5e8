"""Sampled decoding that depends on no batch: every answer has random numbers of its own.

The Gumbel-max trick (Gumbel 1954; Maddison et al. 2014): argmax(logits / T + G) with independent
standard Gumbel noise G is a draw from softmax(logits / T). The model decodes greedily, the noise is
added to its scores, so that a row's draws are its own.

Shape legend: R rows, L tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from seva_exp.core.randomness import seed_for
from seva_exp.decoding.noise import gumbel


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn (temperature > 0, top_p in (0, 1]), and from which random numbers: those
    of (``seed``, ``purpose``, request's id). Two views of one sample need two purposes."""

    temperature: float
    top_p: float
    seed: int
    purpose: str

    def seed_of(self, id: str) -> int:
        """The seed of one request, of 63 bits."""
        return seed_for(self.seed, self.purpose, id)

    def scores(self, scores: Tensor, seeds: Tensor, steps: Tensor) -> Tensor:
        """Scores [R, V] (float32, whatever the model's format) whose largest are the drawn tokens;
        ``seeds`` [R] are the rows', ``steps`` [R] how many tokens each has. The largest score is
        moved to 0, so that a small temperature does not overflow; excluded tokens stay at -inf."""
        scores = (scores - scores.amax(dim=-1, keepdim=True)) / self.temperature
        if self.top_p < 1:
            scores = TopPLogitsWarper(top_p=self.top_p)(None, scores)
        return scores + gumbel(seeds, steps, scores.shape[-1])

    def processors(self, ids: Sequence[str]) -> LogitsProcessorList:
        """For one ``generate`` call with ``do_sample=False``; ``ids`` are its rows' requests."""
        return LogitsProcessorList([_Drawn(self, [self.seed_of(id) for id in ids])])


class _Drawn(LogitsProcessor):
    """One step of ``generate`` after the other, for all rows of its batch."""

    def __init__(self, sampling: Sampling, seeds: list[int]) -> None:
        self._sampling = sampling
        self._seeds = torch.tensor(seeds)
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._seeds = self._seeds.to(scores.device)
        steps = torch.full_like(self._seeds, self._step)
        self._step += 1
        return self._sampling.scores(scores, self._seeds, steps)
