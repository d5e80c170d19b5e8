"""Contrastive decoding: each token is chosen by the model's logits and by those that it has for the
same answer behind a worse question. Specs; no heavy import.

Notation: l [R, V] the logits of the question with its picture v, l' those of what stands beside it,
t [R] the tokens of the answer so far.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import VisionLanguageModel
from seva_exp.core.spec import BY_KIND, Json, Spec, by_kind

if TYPE_CHECKING:
    from torch import Tensor

Place = Literal["clean", "views", "evaluate"]
Scored = Callable[["Tensor", "Tensor | None", "Tensor"], "Tensor"]


class Contrast(Spec):
    """Base: how scores are made of logits, and which answers are decoded so."""

    paired: ClassVar[bool] = False
    """Whether a second row stands beside each row, with keys and values of its own."""
    kind: str
    at: tuple[Place, ...] = Field(("evaluate",), min_length=1)
    """Which answers: ``evaluate``, those to the benchmarks' questions, of the base and the aligned
    model; ``clean``, those to the clean question, which are chosen; ``views``, those of every other
    source that asks the model, which are rejected."""
    temperature: float = Field(0.0, ge=0)
    """Of the answers to the benchmarks' questions: 0 is greedy, as they are without a contrast;
    above, tokens are drawn. Pairs' answers have ``generation.temperature``."""
    seed: int = Field(0, ge=0)
    """Of what the view draws, and of tokens drawn for benchmarks; the run's own seed has no part in
    it, so that the base model is evaluated once for all runs."""

    @property
    def looks_at(self) -> str | None:
        """The view beside each row, by name; none: there is no picture."""
        return None

    def idle(self, temperature: float) -> bool:
        """Whether it changes nothing at this temperature."""
        return False

    def identity(self) -> Json:
        """All that decides an answer beside the view that ``looks_at`` names. Where it is used, and
        the benchmarks' temperature, are told by the stage."""
        return {k: v for k, v in self.to_json().items() if k not in ("at", "temperature", "view")}

    @abstractmethod
    def scored(self, vlm: VisionLanguageModel) -> Scored:
        """The function of l, where excluded tokens are -inf, l' (None where nothing stands beside)
        and t that gives the scores [R, V] of which tokens are chosen or drawn."""

    @model_validator(mode="after")
    def _changes_something(self) -> Contrast:
        if "evaluate" in self.at and self.idle(self.temperature):
            raise ValueError(
                f"kind={self.kind} changes nothing at temperature=0 (greedy): the best token is "
                "plausible. Set temperature above 0, or at=[clean] with generation.temperature."
            )
        return self


def _plausible(scores: Tensor, logits: Tensor, cutoff: float) -> Tensor:
    """``scores`` of tokens that have at least the share ``cutoff`` of the best one's probability by
    ``logits``; -inf for the others. 0: all."""
    if not cutoff:
        return scores
    least = logits.amax(dim=-1, keepdim=True) + math.log(cutoff)
    return scores.masked_fill(logits < least, -math.inf)


class Paired(Contrast):
    """Base of the contrasts with what stands beside a row: l' are its logits."""

    paired: ClassVar[bool] = True
    view: str | None = Field(None, min_length=1)
    """What stands beside: a view of ``aug`` by name, or a kind of view with its default numbers;
    null: the question without a picture."""
    cutoff: float = Field(0.1, ge=0, le=1)
    """Share of the best token's probability that a token needs; 0: none is left out."""

    @property
    def looks_at(self) -> str | None:
        return self.view

    @abstractmethod
    def away(self, logits: Tensor, other: Tensor, steps: Tensor) -> Tensor:
        """The scores [R, V] before the cut, of l and l' [R, V] and t [R]."""

    def scored(self, vlm: VisionLanguageModel) -> Scored:
        def score(logits: Tensor, other: Tensor | None, steps: Tensor) -> Tensor:
            assert other is not None
            return _plausible(self.away(logits, other, steps), logits, self.cutoff)

        return score


class Constant(Paired):
    """VCD (arXiv:2311.16922, eq. 3 and 4) and, with a bad prompt, ICD (arXiv:2403.18715):
    (1 + alpha) l - alpha l', of the tokens with l >= log(cutoff) + max l."""

    kind: Literal["constant"] = "constant"
    view: str | None = Field("diffusion_noise", min_length=1)
    """What stands beside: a view of ``aug`` by name, or a kind of view with its default numbers;
    null: the question without a picture."""
    alpha: float = 1.0
    """How far away from l'. Below 0 it is towards it: -1 takes l' alone, of the tokens that are
    plausible by l."""

    def away(self, logits: Tensor, other: Tensor, steps: Tensor) -> Tensor:
        return (1 + self.alpha) * logits - self.alpha * other


class M3id(Paired):
    """M3ID (arXiv:2403.14003): l + ((1 - g) / g) (l - l'), g = exp(-decay t), where the most
    probable token by l has a probability below ``confident``, else l; l' has no picture. The first
    token is chosen as ever (t = 0), and the weight exp(decay t) - 1 grows with what the model
    forgets of the picture. The paper writes log-probabilities for l: their normalisers shift all
    tokens alike."""

    kind: Literal["m3id"] = "m3id"
    decay: float = Field(0.02, gt=0)
    """Per token: how fast the picture is taken to be forgotten (the paper's lambda)."""
    confident: float = Field(0.9, gt=0, le=1)
    """Probability of the best token from which on nothing is corrected; 1: everything is."""
    cutoff: float = Field(0.0, ge=0, le=1)
    """As in ``kind: constant``; M3ID has none."""

    def away(self, logits: Tensor, other: Tensor, steps: Tensor) -> Tensor:
        weight = (self.decay * steps).to(logits.dtype).expm1()[:, None]
        sure = logits.softmax(dim=-1).amax(dim=-1, keepdim=True) >= self.confident
        return logits + weight.masked_fill(sure & (self.confident < 1), 0) * (logits - other)


class CutoffOnly(Contrast):
    """A control (arXiv:2504.10020): l itself, of the tokens with l >= log(cutoff) + max l. What a
    contrast's cut alone does to tokens that are drawn; nothing stands beside."""

    kind: Literal["cutoff_only"] = "cutoff_only"
    cutoff: float = Field(0.1, ge=0, le=1)
    """Share of the best token's probability that a token needs; 0: plain draws."""

    def idle(self, temperature: float) -> bool:
        return not temperature

    def scored(self, vlm: VisionLanguageModel) -> Scored:
        return lambda logits, other, steps: _plausible(logits, logits, self.cutoff)


class YesBias(Contrast):
    """A control (arXiv:2504.10020): a constant is added to the logits of ``words`` as an answer's
    first token. It knows nothing of the picture; nothing stands beside."""

    kind: Literal["yes_bias"] = "yes_bias"
    bias: float = 1.0
    """What is added, in nats; below 0 it is a bias towards anything else."""
    words: tuple[str, ...] = Field(("Yes", "yes"), min_length=1)
    """What gets it; a word that is not one token of the model is left out, as its first token is of
    other words too."""

    def scored(self, vlm: VisionLanguageModel) -> Scored:
        unknown = vlm.processor.tokenizer.unk_token_id
        tokens = [vlm.answer_ids("?", word)[:-1] for word in self.words]
        ids = sorted({one[0] for one in tokens if len(one) == 1} - {unknown})
        if not ids:
            raise StageError(
                f"generation.contrast.words={list(self.words)}: none is one token of this model. "
                "Give the words with which it says yes."
            )

        def score(logits: Tensor, other: Tensor | None, steps: Tensor) -> Tensor:
            logits[:, ids] += self.bias * (steps == 0)[:, None]
            return logits

        return score


_Union = Constant | M3id | CutoffOnly | YesBias

AnyContrast = Annotated[_Union, BY_KIND]
"""The field type of a config that holds a contrast."""
CONTRASTS: dict[str, type[Contrast]] = by_kind(_Union)
"""kind -> class."""


def refuse_contrast(kind: str, node: Any) -> Any:
    """``node`` of a generation that knows no contrast, without a field that is null. Raises
    ValueError where it has one."""
    if isinstance(node, dict) and "contrast" in node:
        if node["contrast"] is not None:
            raise ValueError(
                f"contrast: a contrast looks at the logits of each step, which kind={kind} does "
                "not tell. Take generation=hf, or leave generation/contrast out."
            )
        return {name: value for name, value in node.items() if name != "contrast"}
    return node
