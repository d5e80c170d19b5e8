"""A loss of our own: from scores to one value a preference, and what it needs. No heavy import.

Shape legend: N preferences, M rejected answers (all preferences'), V views with a picture (all
preferences'). Scores are s = beta (log pi(y|m,x) - log pi_ref(y|m,x)) with the clean picture m,
unless said otherwise.
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


class Loss(ABC):
    """A loss from the log-probabilities of whole answers. What it is stands in its class."""

    name: ClassVar[str]
    """Its name in ``DpoTraining.loss``."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Names of ``NEEDS``: made only where a loss needs them, and asked of the config's sources."""

    @abstractmethod
    def __call__(self, s: Scores) -> Tensor:
        """[N]: one value a preference, to be averaged."""
