"""How a model is trained: on preferences (align) or on given responses. No heavy import."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from seva_exp.core.errors import suggest
from seva_exp.core.plugin_source import code_of
from seva_exp.core.spec import Json, Spec
from seva_exp.training.loss import Loss
from seva_exp.training.losses import OURS
from seva_exp.training.weight import LossWeights
from seva_exp.training.weights import AnyWeights

TrlLoss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
"""TRL 1.16's losses: each is a mean over the pairs (chosen, rejected[k])."""
TRL_LOSSES: tuple[str, ...] = get_args(TrlLoss)


def cut(step: int, ranks: int, most: int) -> tuple[int, int]:
    """The split of a step of so many rows: rows of a micro-batch (at most ``most``, and of nearly
    one size), and micro-batches of each rank."""
    share = -(-step // ranks)
    count = -(-share // most)
    return -(-share // count), count


def our_losses() -> dict[str, Loss]:
    """The losses of ``training/losses``, each a mean over the preferences; what each needs stands
    in its class."""
    return OURS


def loss_names() -> tuple[str, ...]:
    """TRL's, ours, and those of plugins."""
    return (*TRL_LOSSES, *our_losses())


OUR_LOSSES = tuple(our_losses())
LOSSES = (*TRL_LOSSES, *OUR_LOSSES)
LossName = Annotated[str, WithJsonSchema({"type": "string", "enum": LOSSES})]
"""One of ``LOSSES``, or a plugin's."""
HELD_OUT = "held_out/"
"""Before a metric's name: of the preferences that are held out."""
OPTIONAL = ("weights", "held_out")
"""Fields of a DPO training that are in its key only where they are given."""
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
"""The losses that ``label_smoothing`` changes."""
Fast = Literal["auto", "on", "off"]
Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Training(Spec):
    """The fields that every training has: AdamW on a LoRA adapter of the language model and, if
    wanted, on the projector. LoRA dropout is 0: the reference and the policy must be the same
    function before the first step, and TRL switches every dropout off."""

    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    epochs: int = Field(1, ge=1)
    """Passes over the data."""
    batch_size: int = Field(16, ge=1)
    """Rows of the data per optimizer step, over all devices and accumulation steps."""
    train_projector: bool = False
    """Train the module between vision tower and language model too, as a whole (not by LoRA)."""
    projector_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of the projector; none means ``learning_rate``."""
    lora_rank: int = Field(32, ge=1)
    """LoRA's r."""
    lora_alpha: int = Field(64, ge=1)
    """LoRA's alpha; the update is scaled by alpha / r."""
    lora_modules: tuple[Module, ...] = ()
    """Which projections of the language model get LoRA; none means every linear layer."""

    @model_validator(mode="after")
    def _projector_is_trained_where_it_has_a_rate(self) -> Training:
        if self.projector_learning_rate is not None and not self.train_projector:
            raise ValueError(
                f"projector_learning_rate={self.projector_learning_rate}: the projector is not "
                "trained. Set train_projector=true, or projector_learning_rate=null"
            )
        return self


class DpoTraining(Training):
    """Direct preference optimization (Rafailov et al. 2023, eq. 7) and its relatives, by TRL's
    DPOTrainer. Log-probabilities are summed over the answer's tokens.

    TRL's losses are means over pairs (a preference with K rejected answers makes K pairs), ours
    means over preferences. The result does not depend on ``machine.train_batch_size``, except for
    three of TRL's losses that are by their nature functions of the micro-batch and not sums over
    pairs: ``aot`` and ``aot_unpaired`` sort the pairs of a micro-batch, ``sft`` is the mean over a
    micro-batch's tokens (``chosen_nll`` is a sum over tokens and has no such trait).
    """

    loss: LossName | dict[LossName, float] = "sigmoid"
    """A loss, or losses with weights such as {sigmoid: 1.0, chosen_nll: 0.001}."""
    # Kept as weights: ``sigmoid`` and {sigmoid: 1.0} are one value, with one key.
    weights: AnyWeights | None = None
    """Weights of tokens, or of pairs (tpo, aspo, da_dpo, ue_dpo, agreement); none: all alike."""
    # Older than no key: where there are none, they are in none (``identity``).
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference model."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of preferences taken to be the wrong way round (exo_pair, robust, aot...)."""
    discopop_tau: float = Field(0.05, gt=0)
    """Temperature of the loss ``discopop``."""
    repeat: int = Field(1, ge=1)
    """How often each preference is listed in an epoch; the copies are shuffled apart."""
    batch_size: int = Field(16, ge=1)
    """Preferences (prompts, each with its K rejected answers) per optimizer step."""
    held_out: float = Field(0.0, ge=0, lt=1)
    """Share of the pictures whose preferences are scored while training, and not trained on."""
    # As ``weights``: without it, it is in no key.
    fast: Fast = "auto"
    """Compute prompts and pictures once: where that is exact (auto), or else stop (on); or not."""
    # Results are equal to rounding, so it is in no key: see ``identity``.

    @field_validator("loss", mode="before")
    @classmethod
    def _as_weights(cls, value: Any) -> dict[str, float]:
        """One form for each value: weights by name, sorted, none of them zero."""
        weights = {value: 1.0} if isinstance(value, str) else value
        if not isinstance(weights, Mapping):
            raise _refused("give the name of a loss, or names with weights", loss_names())
        for name, weight in weights.items():
            if name not in loss_names():
                raise _refused(f"no loss is named {name!r}.{suggest(str(name), loss_names())}")
            if not _is_weight(weight):
                raise _refused(f"{name}={weight}: a weight is a number of 0 or more")
        terms = {name: float(weights[name]) for name in sorted(weights) if weights[name]}
        if not terms:
            raise _refused("no loss has a weight above 0, so nothing would be learnt")
        return terms

    @model_validator(mode="after")
    def _smoothing_fits_the_loss(self) -> DpoTraining:
        smoothing, where = self.label_smoothing, f"label_smoothing={self.label_smoothing}: "
        if "exo_pair" in self.terms and smoothing == 0:
            raise ValueError(f"{where}the loss exo_pair needs more than 0 (its paper takes 1e-3)")
        if "robust" in self.terms and smoothing >= 0.5:
            raise ValueError(f"{where}the loss robust needs less than 0.5")
        if smoothing and not any(name in self.terms for name in SMOOTHED):
            raise ValueError(
                f"{where}no loss of {', '.join(self.terms)} is changed by it, only "
                f"{', '.join(SMOOTHED)} are. Set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_defined(self) -> DpoTraining:
        weights = self.weights
        for name in self.terms if weights else ():
            if weights and (why := weights.refusal(name, our_losses().get(name))):
                raise ValueError(
                    f"weights: kind={weights.kind} is not defined in the loss {name}, which "
                    f"{why}. Take another loss, or weights=null"
                )
        return self

    def identity(self) -> Json:
        """All that decides the result."""
        left_out = {"fast", *(name for name in OPTIONAL if not getattr(self, name))}
        found = {name: value for name, value in self.to_json().items() if name not in left_out}
        code = {name: code_of(type(our_losses()[name])) for name in self.our_terms}
        others = {name: one["code"] for name, one in code.items() if one}
        return found | ({"code": others} if others else {})

    @property
    def terms(self) -> dict[str, float]:
        """The losses' weights by name."""
        assert isinstance(self.loss, dict), "kept as weights since validation"
        return {str(name): weight for name, weight in self.loss.items()}

    @property
    def trl_terms(self) -> dict[str, float]:
        """The loss terms that are TRL's."""
        return {name: weight for name, weight in self.terms.items() if name in TRL_LOSSES}

    @property
    def our_terms(self) -> dict[str, float]:
        """The loss terms that are in ``training/losses``."""
        return {name: weight for name, weight in self.terms.items() if name in our_losses()}

    @property
    def needs(self) -> dict[str, str]:
        """What losses and weights look at beside the answers (``training.loss.NEEDS``), each with
        the name of a loss, or the kind of the weights, that does."""
        known = our_losses()
        weights = self.weights
        found = {need: weights.kind for need in sorted(weights.needs)} if weights else {}
        return found | {need: name for name in self.our_terms for need in sorted(known[name].needs)}

    @property
    def pictured(self) -> bool:
        """Whether in training the chosen answer is looked at with the negative views' pictures:
        kept weights look at them before."""
        online = self.weights is not None and not self.weights.kept and self.weights.needs
        return any("images" in our_losses()[n].needs for n in self.our_terms) or bool(online)

    @property
    def ordered(self) -> str:
        """The loss that looks at the order of the views' pictures; empty: none does."""
        return next((name for name in self.our_terms if our_losses()[name].ordered), "")

    @property
    def agreed(self) -> bool:
        """Whether the weights are made of the agreement of answers under weak views."""
        return isinstance(self.weights, LossWeights)

    @property
    def crossed(self) -> bool:
        """Whether in training the rejected answers are looked at with the pictures that they were
        given to."""
        online = self.weights is not None and not self.weights.kept and self.weights.logits
        return online or any(our_losses()[name].crossed for name in self.our_terms)

    @property
    def diverges(self) -> str:
        """The loss that looks at whole distributions; empty: none does."""
        return next((name for name in self.our_terms if our_losses()[name].diverges), "")


class SftTraining(Training):
    """Supervised fine-tuning on given responses (STIC's stage 2), by TRL's SFTTrainer: the mean
    negative log-likelihood of the responses' tokens over an optimizer step.

    It goes on with the adapter of an earlier alignment where there is one: ``lora_rank``,
    ``lora_alpha`` and ``lora_modules`` are then that adapter's, and those given here are not used.
    """

    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate of AdamW."""
    batch_size: int = Field(16, ge=1)
    """Samples per optimizer step, over all devices and accumulation steps."""


def _is_weight(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _refused(message: str, known: tuple[str, ...] = ()) -> PydanticCustomError:
    text = f"{message}.{suggest('', known)}" if known else message
    return PydanticCustomError("loss", "{said}", {"said": text.removesuffix(".")})
