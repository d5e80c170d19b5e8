"""TPO's weights: how much the picture makes a token likely."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from seva_exp.training.weight import Said, TokenWeights

if TYPE_CHECKING:
    from torch import Tensor


class Tpo(TokenWeights):
    """0.5 + sigma(d_t) for a chosen answer, 0.5 + sigma(-d_t) for a rejected one, d_t = the logit
    of its token with the clean picture less that with a worse one (TPO, arXiv 2412.14487, there
    noise of step 500); both of the reference. A chosen answer's d_t is the mean over its worse
    pictures; the weights are 1 for an answer whose source changes no picture."""

    kind: Literal["tpo"] = "tpo"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    kept: ClassVar[bool] = True
    logits: ClassVar[bool] = True

    def __call__(self, said: Said) -> Tensor:
        import torch

        if not said.worse:
            return torch.ones_like(said.log_probs)
        assert said.logits is not None
        depends = said.logits - torch.stack(said.worse).mean(0)
        return 0.5 + torch.sigmoid(depends if said.chosen else -depends)
