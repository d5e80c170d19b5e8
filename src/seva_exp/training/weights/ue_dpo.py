"""UE-DPO's weights: more pressure where the policy does not see."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from seva_exp.training.weight import Said, TokenWeights

if TYPE_CHECKING:
    from torch import Tensor


class UeDpo(TokenWeights):
    """1 + a [d_t < q_tau] sigma(z(u_t)) for a chosen answer, 1 - a [d_t >= q_(1 - tau)]
    sigma(z(u_t)) for a rejected one, on log pi alone (UE-DPO, arXiv 2605.04874, there a worse
    picture is noised to step 500). u_t = the logit of the token that is likeliest with the worse
    picture less that of y_t, both with the clean one; d_t = the logit of y_t with the clean picture
    less that with the worse one; all of the policy, without gradient. q: quantile, z: standard
    score, both over the answer's tokens; several pictures' weights are averaged."""

    kind: Literal["ue_dpo"] = "ue_dpo"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    logits: ClassVar[bool] = True
    alpha: float = Field(0.3, ge=0, le=1)
    """a: how far a weight may be from 1."""
    tau: float = Field(0.4, gt=0, lt=1)
    """Share of an answer's tokens that the picture bears on least (chosen) or most (rejected)."""

    def __call__(self, said: Said) -> Tensor:
        import torch

        assert said.logits is not None
        found = [torch.ones_like(said.log_probs)] if not said.worse else []
        for worse, mistaken in zip(said.worse, said.mistaken, strict=True):
            depends, unsure = said.logits - worse, mistaken - said.logits
            spread = unsure.std(unbiased=False).clamp(min=1e-6)
            strength = self.alpha * torch.sigmoid((unsure - unsure.mean()) / spread)
            if said.chosen:
                found.append(1 + strength * (depends < depends.quantile(self.tau)))
            else:
                found.append(1 - strength * (depends >= depends.quantile(1 - self.tau)))
        return torch.stack(found).mean(0)
