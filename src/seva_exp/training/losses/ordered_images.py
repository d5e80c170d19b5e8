"""One answer, an ordered list of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from seva_exp.training.loss import Loss, Scores

if TYPE_CHECKING:
    from torch import Tensor


HIDDEN = -1e30
"""The score in a table's empty places."""


class OrderedImages(Loss):
    """-sum_i log (e^s_i / sum_(k >= i) e^s_k) over the chosen answer's scores with the clean
    picture (i = 0) and with those of its views, from the weakest to the strongest: Plackett-Luce
    over pictures (LPOI, arXiv 2505.21061). ``image`` where there is one view; 0 where there is
    none."""

    name: ClassVar[str] = "ordered_images"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    ordered: ClassVar[bool] = True

    def __call__(self, s: Scores) -> Tensor:
        import torch

        assert s.strength is not None
        by_strength = s.strength.argsort(stable=True)
        order = by_strength[s.view_owner[by_strength].argsort(stable=True)]
        owner = s.view_owner[order]
        counts = torch.bincount(owner, minlength=len(s.chosen))
        first = (counts.cumsum(0) - counts)[owner]
        place = torch.arange(len(owner), device=owner.device) - first
        wide = int(counts.max()) if len(counts) else 0
        table = s.chosen.new_full((len(s.chosen), wide), HIDDEN)
        table = torch.cat([s.chosen[:, None], table.index_put((owner, place), s.views[order])], 1)
        rest = table.flip(1).logcumsumexp(1).flip(1)
        return torch.where(table > HIDDEN, rest - table, 0.0).sum(1)
