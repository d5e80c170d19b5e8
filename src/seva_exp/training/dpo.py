"""The align stage's trainer: TRL's DPOTrainer on our batches, with our losses beside TRL's.

Two halves, kept apart: rows -> log-probabilities (``forward.py``), and log-probabilities -> loss
(TRL's own code on a replay of the rows, and ``losses/``).

Shape legend: N preferences, M rejected answers, V views with a picture, R rows (collate.py), L
tokens, S tokens of all answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import Placement
from seva_exp.training.arguments import OneDevice, on_its_device, shared_arguments, vision_rows
from seva_exp.training.batches import SeededOrder
from seva_exp.training.collate import OWNERS, Preference, PreferenceCollator
from seva_exp.training.driver import TrainingJob
from seva_exp.training.forward import (
    FIELDS,
    Forward,
    answers_of,
    apart,
    by_row,
    forward_for,
    labels_of,
)
from seva_exp.training.head import Head
from seva_exp.training.held_out import HeldOut
from seva_exp.training.lora import (
    POLICY,
    REFERENCE,
    add_reference,
    check_start,
    load_adapter,
    lora_config,
)
from seva_exp.training.loss import Crossed, Divergence, Scores
from seva_exp.training.losses import OURS
from seva_exp.training.precision import keep_in_float32
from seva_exp.training.sharding import share_out
from seva_exp.training.spec import DpoTraining
from seva_exp.training.steps import StepTrainer
from seva_exp.training.trl_private import pair_loss, use_adapter
from seva_exp.training.weighing import said_of, token_weights
from seva_exp.training.weight import LossWeights, PairFactors, TokenWeights

START_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
"""How far (``apart``) policy and reference may be apart before training: both are rounded, perhaps
in other batches or on the other way (forward.py), and a micro-batch may be a few tokens."""
OURS_PREFIX = "loss/"
UNITS = {
    "rewards/chosen": "pairs",
    "rewards/rejected": "pairs",
    "rewards/accuracies": "pairs",
    "rewards/margins": "pairs",
    "logps/chosen": "pairs",
    "logps/rejected": "pairs",
    "entropy": "pair_tokens",
    "logits/chosen": "pair_chosen_tokens",
    "logits/rejected": "rejected_tokens",
    "mean_token_accuracy": "pair_chosen_tokens",
    "lengths/chosen": "preferences",
    "lengths/rejected": "pairs",
    "kl_k1/chosen": "chosen_tokens",
    "weights/chosen": "chosen_tokens",
    "weights/rejected": "rejected_tokens",
    "weights/pairs": "pairs",
    "weights/loss": "preferences",
    **{OURS_PREFIX + name: "preferences" for name in OURS},
}
"""What each metric is the mean over. TRL's are over its rows: a chosen answer's tokens count once
for each of its rejected answers."""


@dataclass(frozen=True)
class Replay:
    """Stands in for the model in TRL's loss: gives the rows that are there already, in TRL's
    order, the chosen one repeated for each of its rejected ones."""

    outputs: dict[str, Tensor]
    rows: Tensor
    factors: Tensor | None = None
    """On the log-probabilities of each of these rows."""
    weights: Tensor | None = None
    """On their gradients: those of a sum of pairs' losses with such weights, since a row here is of
    one pair."""

    def __call__(self, **_: Any) -> SimpleNamespace:
        found = {k: self.outputs[k][self.rows] for k in FIELDS if k in self.outputs}
        if self.factors is not None:
            found["log_probs"] = found["log_probs"] * self.factors[:, None]
        if self.weights is not None:
            held = found["log_probs"].detach()
            found["log_probs"] = held + self.weights[:, None] * (found["log_probs"] - held)
        return SimpleNamespace(**found)


class DpoArguments(OneDevice, DPOConfig):
    """TRL's, for a process with a device of its own."""


class PreferenceTrainer(StepTrainer, DPOTrainer):
    """TRL's trainer on preferences with any number of rejected answers.

    ``forward`` turns a batch into rows; the model sees each row once. TRL's losses are means over
    pairs and weighed by the micro-batch's share of the step's pairs, ours over preferences and
    weighed by its share of those.
    """

    stage: ClassVar[str] = "align"
    group: ClassVar[str] = "dpo"
    units: ClassVar[dict[str, str]] = UNITS

    def __init__(self, *, spec: DpoTraining, starts_equal: bool, **options: Any) -> None:
        rate = spec.projector_learning_rate
        super().__init__(batch_size=spec.batch_size, projector_rate=rate, **options)
        self._spec = spec
        self._starts_equal = starts_equal
        self.forward: Forward
        self.head = Head(options["model"])
        weights = spec.weights
        self._token_weights = weights if isinstance(weights, TokenWeights) else None
        self.precompute_ref_logps = True  # TRL's loss takes the reference from its inputs

    def unit_of(self, metric: str) -> str:
        """Of any loss of ours, a plugin's too, the mean is over preferences."""
        return "preferences" if metric.startswith(OURS_PREFIX) else super().unit_of(metric)

    def count(self, batch: Any) -> Counter[str]:
        rejected = len(batch["rejected_owner"])
        others = rejected + len(batch["view_owner"]) + len(batch["crossed"])
        preferences = len(batch["input_ids"]) - others
        tokens = batch["completion_mask"].sum(dim=1)
        sums = [
            tokens[:preferences].sum(),
            tokens[batch["rejected_owner"]].sum(),
            tokens[preferences : preferences + rejected].sum(),
        ]
        chosen, repeated, wrong = torch.stack(sums).tolist()  # one wait for a GPU
        return Counter(
            pairs=rejected,
            preferences=preferences,
            chosen_tokens=chosen,
            pair_chosen_tokens=repeated,
            rejected_tokens=wrong,
            pair_tokens=repeated + wrong,
        )

    def leave(self) -> None:
        super().leave()
        self.forward.close()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """TRL's terms and ours, summed with their weights."""
        assert not return_outputs, "we never evaluate with the trainer"
        self._seen.append(self.count(inputs))
        owners = {key: inputs[key] for key in OWNERS}
        inputs = {key: value for key, value in inputs.items() if key not in OWNERS}
        reference = self._reference(inputs)
        before = self._reference_hidden(inputs)
        online = self._token_weights is not None and not self._token_weights.kept
        outputs = self.forward(model, inputs, hidden=before is not None or online)
        policy, lengths = outputs["log_probs"].sum(dim=1), inputs["completion_mask"].sum(dim=1)
        if self._starts_equal and self.state.global_step == 0:
            self._check_start(policy.detach(), reference, lengths)
        self._note(lengths, policy.detach(), reference)
        outputs, reference = self._with_weights(outputs, inputs, owners, reference)
        policy = outputs["log_probs"].sum(dim=1)
        weights = self._loss_weights(inputs)
        # Also asked for where its loss has no part: the metrics are made there.
        loss = self._trl_loss(inputs, outputs, reference, owners["rejected_owner"], weights)
        loss = loss * self.share("pairs") if self._spec.trl_terms else torch.zeros_like(loss)
        scores = self._scores(policy, reference, owners)
        if before is not None:
            found = self._divergence(outputs, before, inputs)
            scores = replace(scores, divergence=found)
        for name, weight in self._spec.our_terms.items():
            each = OURS[name](scores)
            value = (each if weights is None else weights * each).mean()
            self.metrics[OURS_PREFIX + name].append(value.item())
            loss = loss + weight * value * self.share("preferences")
        return loss

    def _note(self, lengths: Tensor, policy: Tensor, reference: Tensor) -> None:
        """Answer lengths [R] in tokens, and the mean over the chosen answers' tokens of
        log pi - log pi_ref: the estimator k1 of KL(pi || pi_ref) (Schulman 2020, "Approximating KL
        divergence"). It would be unbiased on answers that pi itself gives; the chosen ones were
        given by the model before training, so it is a drift, and may be negative."""
        chosen, pairs = self._seen[-1]["preferences"], self._seen[-1]["pairs"]
        metrics, drift = self.metrics, (policy - reference)[:chosen].sum()
        metrics["lengths/chosen"].append(lengths[:chosen].float().mean().item())
        metrics["lengths/rejected"].append(lengths[chosen : chosen + pairs].float().mean().item())
        metrics["kl_k1/chosen"].append((drift / self._seen[-1]["chosen_tokens"]).item())

    def _reference(self, inputs: Any) -> Tensor:
        """log pi_ref of each row [R]: as it was computed before, or by the adapter ``ref`` where
        there is one, else by none."""
        if "reference" in inputs:
            return inputs["reference"]

        def rows(**_: Any) -> SimpleNamespace:
            return SimpleNamespace(**self.forward(self.model, inputs))

        return torch.cat(self.compute_ref_log_probs(rows, inputs))

    def _loss_weights(self, inputs: Any) -> Tensor | None:
        """[N]: those of the preferences' losses; none where all count alike."""
        weights = self._spec.weights
        if not isinstance(weights, LossWeights):
            return None
        found = weights(inputs["agreement"])
        self.metrics["weights/loss"].append(found.mean().item())
        return found

    def _trl_loss(
        self,
        inputs: Any,
        outputs: Any,
        reference: Tensor,
        owner: Tensor,
        weighed: Tensor | None = None,
    ) -> Tensor:
        """TRL's own loss and metrics over the M pairs, from rows that are there already. With the
        preferences' weights ``weighed`` [N] its gradient is the weighted mean's."""
        rejected = self._seen[-1]["preferences"] + torch.arange(len(owner), device=owner.device)
        stock = torch.cat([owner, rejected])
        factors, weights = None, self._spec.weights
        if isinstance(weights, PairFactors):
            mean = reference / inputs["completion_mask"].sum(dim=1)
            factors = weights(mean[owner] - mean[rejected]).repeat(2)
            self.metrics["weights/pairs"].append(factors.mean().item())
        pairs = {key: inputs[key][stock] for key in ("input_ids", "completion_mask")}
        pairs |= {
            "attention_mask": inputs["attention_mask"],  # counted only: what the model really saw
        }
        known = reference[stock] if factors is None else reference[stock] * factors
        pairs["ref_chosen_logps"], pairs["ref_rejected_logps"] = known.chunk(2)
        with self.on_this_rank():
            rows = None if weighed is None else weighed[owner].repeat(2)
            return pair_loss(self, Replay(outputs, stock, factors, rows), pairs)

    def _with_weights(
        self,
        outputs: dict[str, Tensor],
        inputs: Any,
        owners: dict[str, Tensor],
        reference: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Log-probabilities of policy and reference with the tokens' weights."""
        weights = self._token_weights
        if weights is None:
            return outputs, reference
        if weights.kept:
            flat, weighted = inputs["token_weights"], inputs["weighted_reference"]
        else:
            said = said_of(self.head, outputs, inputs, owners, weights.logits)
            flat, weighted = token_weights(weights, said, owners), reference
        table = by_row(flat, inputs)
        seen = self._seen[-1]
        chosen, both = seen["chosen_tokens"], seen["chosen_tokens"] + seen["rejected_tokens"]
        self.metrics["weights/chosen"].append(flat[:chosen].mean().item())
        self.metrics["weights/rejected"].append(flat[chosen:both].mean().item())
        return outputs | {"log_probs": outputs["log_probs"] * table}, weighted

    def _scores(self, policy: Tensor, reference: Tensor, owners: dict[str, Tensor]) -> Scores:
        """What our losses look at, cut out of the R rows."""
        owner, view_owner, given = (owners[name] for name in OWNERS[:3])
        sizes = [self._seen[-1]["preferences"], *map(len, (owner, view_owner, owners["crossed"]))]
        chosen, rejected, views, own = (self.beta * (policy - reference)).split(sizes)
        logprob, _, shown, _ = policy.split(sizes)
        _, before, _, beside = reference.split(sizes)
        crossed = None
        if self._spec.crossed:
            gains = logprob[view_owner] - shown, before[given] - beside
            crossed = Crossed(own, *gains)
        return Scores(
            logprob, chosen, rejected, owner, views, view_owner,
            self.beta, owners["strength"], given, crossed,
        )  # fmt: skip

    def _reference_hidden(self, inputs: Any) -> Tensor | None:
        """The reference's last layer where answers are predicted, where a loss looks at whole
        distributions: [S, W]."""
        if not self._spec.diverges:
            return None
        name = REFERENCE if REFERENCE in self.model.peft_config else None
        with torch.no_grad(), use_adapter(self.model, name):
            return self.forward(self.model, inputs, hidden=True)["hidden"]

    def _divergence(self, outputs: dict[str, Tensor], before: Tensor, inputs: Any) -> Divergence:
        """Of the chosen and the rejected answers: the first of the rows."""
        sizes = [self._seen[-1]["preferences"], self._seen[-1]["pairs"]]
        inputs = {name: inputs[name][: sum(sizes)] for name in ("input_ids", "completion_mask")}
        labels = labels_of(inputs)
        policy = outputs["hidden"][: len(labels)]
        said = outputs["log_probs"][: sum(sizes)][answers_of(inputs)]
        self.head.check(policy, labels, said.detach())
        found = by_row(self.head.divergence(policy, before[: len(labels)]), inputs)
        return Divergence(*found.sum(dim=1).split(sizes))

    def _check_start(self, policy: Tensor, reference: Tensor, lengths: Tensor) -> None:
        """Before the first step, policy and reference must be the same function."""
        dtype = self.model.dtype
        far = apart(policy, reference, lengths)
        if not far <= START_TOLERANCE[dtype]:
            raise StageError(
                "align: before any training the log-probabilities of policy and reference differ "
                f"by {far:.2g} nats per root of a token, which rounding in {dtype} does not "
                "explain: the reference is wrong, or was made in another number format. "
                "force=[reference] recomputes it."
            )


def trainer_for(
    job: TrainingJob[DpoTraining],
    preferences: Sequence[Preference],
    held_out: Sequence[Preference] = (),
) -> PreferenceTrainer:
    """The trainer with policy and reference in place; ``held_out`` is scored while training. TRL is
    always given a new adapter: given one to go on with, it would hold a copy as reference, wanted
    or not.

    Raises StageError when ``job.start`` has another shape. The trainer raises it before its first
    step when policy and reference differ though they must not.
    """
    vlm, spec, start = job.vlm, job.spec, job.start
    if start is not None:
        check_start(start, spec, "dpo")
    order = SeededOrder([p.id for p in preferences], job.seed)
    trainer = PreferenceTrainer(
        spec=spec,
        starts_equal=start is None or job.reference == "start",
        order=order,
        model=vlm.model,
        peft_config=lora_config(vlm, spec, "dpo"),
        args=_arguments(spec, job.placement, job.seed),
        train_dataset=vision_rows(len(preferences)),
        processing_class=vlm.processor,
        data_collator=PreferenceCollator(vlm, preferences),
    )
    keep_in_float32(trainer.model)
    if start is not None:
        load_adapter(trainer.model, start, POLICY)
        known = all(p.reference is not None for p in (*preferences, *held_out))
        if job.reference == "start" and (spec.diverges or not known):
            add_reference(trainer.model, start)
    first = [preferences[i] for i in order][: trainer.args.per_device_train_batch_size]
    share_out(vlm, trainer.accelerator)
    forward = forward_for(vlm, trainer.model, first, spec.fast, job.placement)
    trainer.forward, trainer.data_collator = forward, forward.collator(preferences)
    if held_out:
        trainer.held_out = HeldOut(held_out, forward.collator(held_out))
    return trainer


def _arguments(spec: DpoTraining, placement: Placement, seed: int) -> DPOConfig:
    terms = spec.trl_terms or {"sigmoid": 0.0}  # its metrics are logged even so
    return on_its_device(
        DpoArguments,
        placement,
        **shared_arguments(spec, placement, seed),
        beta=spec.beta,
        loss_type=[*terms],
        loss_weights=[*terms.values()],
        label_smoothing=spec.label_smoothing,
        discopop_tau=spec.discopop_tau,
    )
