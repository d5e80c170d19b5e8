"""Weights of an answer's tokens, or of pairs: what they are made of, and where they are defined. No
heavy import.

With weights w_t an answer's score is beta (sum_t w_t log pi(y_t) - sum_t w_t log pi_ref(y_t)), the
second w_t 1 for weights that are made in each step, in every loss that is a function of such sums.

Shape legend: T tokens of an answer, M rejected answers.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from seva_exp.core.spec import Spec
from seva_exp.training.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor

SORTED = ("aot", "aot_unpaired", "sft")
"""TRL's losses that are no mean over pairs, where a pair's loss has no weight."""
MEANS = ("ipo", "sigmoid_norm", "sft")
"""TRL's losses that are functions of means over tokens, where weights are not defined."""
SCALED = (
    "sigmoid",
    "hinge",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "apo_zero",
    "apo_down",
    "discopop",
)
"""TRL's losses in which beta does nothing but scale the log-ratios of a pair."""


class Weights(Spec):
    """Base of the weights; what they are stands in their class."""

    kind: str
    needs: ClassVar[frozenset[str]] = frozenset()
    """What they look at beside the answers, by the names of ``training.loss.NEEDS``."""
    kept: ClassVar[bool] = False
    """Whether the reference alone decides them: then they are made once, in the stage ``weights``,
    and weigh log pi_ref too; else they are made in each step, and weigh log pi alone."""
    logits: ClassVar[bool] = False
    """Whether they look at logits, with the views' pictures too."""

    def refusal(self, name: str, ours: Loss | None) -> str:
        """Why they are not defined in the loss ``name`` (TRL's, or one of ``ours``); empty where
        they are."""
        return ""


@dataclass(frozen=True)
class Said:
    """An answer as a model sees it. All [T] and without gradients: ``log_probs`` of its tokens;
    ``sentences``: the number of the sentence that each token is in. With logits: ``logits`` of its
    tokens, and for each picture of a view ``worse``: the same with that picture, and ``mistaken``:
    the logits with the clean picture of the tokens that are likeliest with that one."""

    chosen: bool
    log_probs: Tensor
    sentences: Tensor | None = None
    logits: Tensor | None = None
    worse: tuple[Tensor, ...] = ()
    mistaken: tuple[Tensor, ...] = ()


class TokenWeights(Weights):
    """A weight for each token of an answer."""

    sentences: ClassVar[bool] = False
    """Whether they look at the sentences."""

    def refusal(self, name: str, ours: Loss | None) -> str:
        if ours is None:
            return "is a mean over tokens" if name in MEANS else ""
        return "" if ours.weighted else "looks at more than sums of tokens' log-probabilities"

    @abstractmethod
    def __call__(self, said: Said) -> Tensor:
        """[T]"""


class PairFactors(Weights):
    """A factor on beta for each pair."""

    def refusal(self, name: str, ours: Loss | None) -> str:
        return "" if name in SCALED else "is no function of beta times the log-ratios of a pair"

    @abstractmethod
    def __call__(self, gap: Tensor) -> Tensor:
        """[M] in, [M] out. ``gap``: log pi_ref of the chosen answer less that of the rejected one,
        each a mean over its tokens."""


class LossWeights(Weights):
    """A weight on the loss of each preference: of all its pairs, and of our own losses."""

    def refusal(self, name: str, ours: Loss | None) -> str:
        return "is no mean over pairs" if name in SORTED else ""

    @abstractmethod
    def __call__(self, agreement: Tensor) -> Tensor:
        """[N] in, [N] out. ``agreement``: of the answers to a preference's sample under weak views,
        0 to 1."""
