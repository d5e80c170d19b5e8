"""The next tokens, chosen where the logits are.

Shape legend: R rows (of contrastive decoding, those that lead), V vocabulary, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from seva_exp.core.interfaces import VisionLanguageModel
from seva_exp.decoding.rows import Row
from seva_exp.decoding.sampling import Sampling

Scored = Callable[[Tensor, Tensor | None, Tensor], Tensor]
"""Logits [R, V], where excluded tokens are -inf, those of the rows beside, and steps [R] in; scores
[R, V] out."""


class Chooser:
    """Greedy, or with ``sampling`` from each row's own numbers; by the model's logits, or by what
    ``scored`` makes of them."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        sampling: Sampling | None,
        logprobs: bool,
        scored: Scored | None = None,
    ) -> None:
        suppressed = vlm.model.generation_config.suppress_tokens or []
        self._suppressed = torch.tensor(suppressed, dtype=torch.long, device=vlm.device)
        self._sampling = sampling
        self._logprobs = logprobs
        self._scored = scored
        self._eos = vlm.eos_ids

    def seed_of(self, id: str) -> int:
        """Of a request's draws; 0 where nothing is drawn."""
        return self._sampling.seed_of(id) if self._sampling else 0

    def __call__(
        self, logits: Tensor, seeds: Tensor, steps: Tensor, others: Tensor | None = None
    ) -> Tensor:
        """``logits`` [R, V], ``seeds`` and ``steps`` [R] in, ``others`` [R, V] of the rows beside;
        [1, R] int32 out: tokens; or [2, R], with the bits of their log-probabilities."""
        scores = logits.index_fill(1, self._suppressed, -torch.inf)
        if self._scored:
            scores = self._scored(scores, others, steps)
            scores = scores.index_fill(1, self._suppressed, -torch.inf)  # inf - inf is none
        if self._sampling:
            scores = self._sampling.scores(scores, seeds, steps)
        chosen = scores.argmax(dim=-1)
        found = [chosen.int()]
        if self._logprobs:
            taken = logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
            found.append(taken.view(torch.int32))
        return torch.stack(found)

    def write(self, rows: Sequence[Row], found: Sequence[Tensor]) -> None:
        """What was chosen in T steps, as it came, to the rows: in one copy, the only one for which
        the host waits. What a row got after its end is dropped."""
        tokens, *logprobs = torch.stack(tuple(found), dim=-1).cpu()  # [R, T] each
        for row, new in zip(rows, tokens.tolist(), strict=True):
            for token in new if row.leads else ():
                if self.ended(row):
                    break
                row.tokens.append(token)
        for of_rows in logprobs:
            for row, new in zip(rows, of_rows.view(torch.float32).tolist(), strict=True):
                row.logprobs += new[: len(row.tokens) - len(row.logprobs)]

    def ended(self, row: Row) -> bool:
        """Whether its answer is whole."""
        return len(row.tokens) == row.limit or (bool(row.tokens) and row.tokens[-1] in self._eos)
