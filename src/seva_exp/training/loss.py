"""A loss of our own: from scores to one value a preference, and what it needs. No heavy import.

Shape legend: N preferences, M rejected answers (all preferences'), V views with a picture (all
preferences'). Scores are s = beta (log pi(y|m,x) - log pi_ref(y|m,x)) with the clean picture m,
unless said otherwise; m' is a negative view's picture, y_c the chosen answer, y_r a rejected one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = {"images": "a picture that a negative view changed, as +aug=diffusion_noise does"}
"""What a loss may need beside the answers: its name, as sources of rejected answers say that they
have it (``augment.Source.gives``), and what it is, with an example of a source."""


@dataclass(frozen=True)
class Scores:
    """The inputs of the losses. ``logprob`` [N] is log pi(chosen), summed over its tokens, and
    ``chosen`` [N] its score; ``rejected`` [M]; ``views`` [V]: the chosen answer's score with the
    negative view's picture, none unless a loss needs ``images``. ``rejected_owner`` [M] and
    ``view_owner`` [V] name the preference (0..N-1) of each."""

    logprob: Tensor
    chosen: Tensor
    rejected: Tensor
    rejected_owner: Tensor
    views: Tensor
    view_owner: Tensor
    beta: float = 1.0
    strength: Tensor | None = None
    """[V]: how much each view's picture is changed, on a scale that views of one kind share."""
    view_rejected: Tensor | None = None
    """[V]: which rejected answer (0..M-1) each view gave."""
    crossed: Crossed | None = None
    """There where a loss is ``crossed``."""
    divergence: Divergence | None = None
    """There where a loss ``diverges``."""


@dataclass(frozen=True)
class Crossed:
    """The rejected answers with the pictures that they were given to, all [V]: ``own``: the score
    of y_r with m'; ``policy_gain``: log pi(y_c|m) - log pi(y_c|m'), ``reference_gain``:
    log pi_ref(y_r|m) - log pi_ref(y_r|m')."""

    own: Tensor
    policy_gain: Tensor
    reference_gain: Tensor


@dataclass(frozen=True)
class Divergence:
    """KL(pi_ref || pi) of the next token's distributions, summed over an answer's tokens, clean
    picture: ``chosen`` [N], ``rejected`` [M]."""

    chosen: Tensor
    rejected: Tensor


class Loss(ABC):
    """A loss from the log-probabilities of whole answers. What it is stands in its class."""

    name: ClassVar[str]
    """Its name in ``DpoTraining.loss``."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Names of ``NEEDS``: made only where a loss needs them, and asked of the config's sources."""
    ordered: ClassVar[bool] = False
    """Whether it looks at the order of the views' pictures (``Source.strength``)."""
    crossed: ClassVar[bool] = False
    """Whether it looks at the rejected answers with the pictures that they were given to: a row
    more for each."""
    diverges: ClassVar[bool] = False
    """Whether it looks at whole distributions: a forward pass of the reference more for each
    step."""
    weighted: ClassVar[bool] = True
    """Whether it is defined where tokens have weights (``dpo.weights``): so it is for a function of
    sums of tokens' log-probabilities."""

    @abstractmethod
    def __call__(self, s: Scores) -> Tensor:
        """[N]: one value a preference, to be averaged."""


def mean_of(values: Tensor, owner: Tensor, like: Tensor) -> Tensor:
    """``values`` averaged by their ``owner`` (0..N-1): [N] as ``like``; 0 for one without any."""
    import torch

    zero = torch.zeros_like(like)
    count = zero.index_add(0, owner, torch.ones_like(values))
    return zero.index_add(0, owner, values) / count.clamp(min=1)
