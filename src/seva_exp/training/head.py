"""What the LM head says beside the labels' log-probabilities: logits, the likeliest tokens, and how
far two distributions are apart; in tiles, without the logits of all places at once.

Shape legend: S scored places, C of a tile, W width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from seva_exp.core.errors import StageError

TILE = 2**25
"""Logits that are computed at once."""
TOLERANCE = {torch.float32: 1e-2, torch.float16: 0.3, torch.bfloat16: 1.0}
"""Nats by which a label's log-probability may differ from that of TRL's head."""


class Head:
    """The LM head of a loaded model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.config.get_text_config()
        self._cap = getattr(config, "final_logit_softcapping", None)
        self._checked = False

    def __call__(self, hidden: Tensor) -> Tensor:
        """The last layer's output [C, W] to logits [C, V], float32."""
        head = self._model.get_output_embeddings()
        bias = None if head.bias is None else head.bias.to(hidden.dtype)
        logits = linear(hidden, head.weight.to(hidden.dtype), bias).float()
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

    def of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """The logits of ``tokens`` [S] at the places ``hidden`` [S, W]: [S], without gradients."""
        pairs = zip(self._tiles(hidden), self._tiles(tokens), strict=True)
        with torch.no_grad():
            return torch.cat([self(h).gather(1, t[:, None])[:, 0] for h, t in pairs])

    def likeliest(self, hidden: Tensor, never: int | None = None) -> Tensor:
        """The tokens [S] of the largest logits at the places ``hidden`` [S, W]; not ``never``."""
        with torch.no_grad():
            return torch.cat([self._best(self(tile), never) for tile in self._tiles(hidden)])

    @staticmethod
    def _best(logits: Tensor, never: int | None) -> Tensor:
        if never is not None:
            logits[:, never] = -torch.inf
        return logits.argmax(1)

    def divergence(self, policy: Tensor, reference: Tensor) -> Tensor:
        """KL(pi_ref || pi) of the next token at each place: [S, W] and [S, W] in, [S] out. The
        backward pass computes the logits anew, tile by tile."""
        pairs = zip(self._tiles(policy), self._tiles(reference), strict=True)
        return torch.cat([checkpoint(self._apart, *pair, use_reentrant=False) for pair in pairs])

    def check(self, hidden: Tensor, labels: Tensor, log_probs: Tensor) -> None:
        """Raises StageError where this is another head than TRL's, which gave ``log_probs`` [S] of
        the ``labels`` [S]: a family may scale its logits by a rule of its own. Looks once."""
        if self._checked or not len(labels):
            return
        self._checked = True
        count = max(1, TILE // self._wide)
        with torch.no_grad():
            own = self(hidden[:count]).log_softmax(1).gather(1, labels[:count, None])[:, 0]
        far = (own - log_probs[:count].float()).abs().max().item()
        if not far <= TOLERANCE[hidden.dtype]:
            raise StageError(
                f"the LM head's log-probabilities are {far:.2g} nats off those of the "
                "loss, so this family changes its logits in a way that is not known here. Take a "
                "loss that looks at no distributions (not chip) and no dpo.weights."
            )

    @property
    def _wide(self) -> int:
        return len(self._model.get_output_embeddings().weight)

    def _tiles(self, values: Tensor) -> tuple[Tensor, ...]:
        return values.split(max(1, TILE // self._wide))

    def _apart(self, policy: Tensor, reference: Tensor) -> Tensor:
        ours, theirs = self(policy).log_softmax(1), self(reference).log_softmax(1)
        return (theirs.exp() * (theirs - ours)).sum(1)
