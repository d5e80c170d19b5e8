"""ASPO's weights: sentences by their perplexity."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from seva_exp.training.weight import Said, TokenWeights

if TYPE_CHECKING:
    from torch import Tensor


LARGEST = 80.0
"""Nats per token up to which a sentence's perplexity is a float32."""


class Aspo(TokenWeights):
    """1 + w_i for the tokens of the chosen answer's sentence i, w = -PPL under the reference,
    scaled to 0..1 over the answer's sentences (ASPO-P, arXiv 2505.19100), then all divided by their
    mean over the answer's tokens. 1 for rejected answers and for an answer of one sentence."""

    kind: Literal["aspo"] = "aspo"
    kept: ClassVar[bool] = True
    sentences: ClassVar[bool] = True

    def __call__(self, said: Said) -> Tensor:
        import torch

        assert said.sentences is not None
        if not said.chosen or not len(said.sentences) or not said.sentences.max():
            return torch.ones_like(said.log_probs)
        length = torch.bincount(said.sentences).to(said.log_probs)
        sums = torch.zeros_like(length).index_add(0, said.sentences, said.log_probs)
        fluent = -(-sums / length).clamp(max=LARGEST).exp()
        span = fluent.max() - fluent.min()
        weights = 1 + (fluent - fluent.min()) / span if span > 0 else torch.ones_like(fluent)
        each = weights[said.sentences]
        return each / each.mean()
