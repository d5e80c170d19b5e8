"""The align stage's trainer: TRL's DPOTrainer on our batches, with our losses beside TRL's.

Two halves, kept apart: rows -> log-probabilities (``forward.py``), and log-probabilities -> loss
(TRL's own code on a replay of the rows, and ``losses/``).

Shape legend: N preferences, M rejected answers, V views with a picture, R = N + M + V rows, L
tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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
from seva_exp.training.forward import Forward, apart, forward_for
from seva_exp.training.lora import (
    POLICY,
    add_reference,
    check_start,
    load_adapter,
    lora_config,
)
from seva_exp.training.loss import Scores
from seva_exp.training.losses import OURS
from seva_exp.training.precision import keep_in_float32
from seva_exp.training.sharding import share_out
from seva_exp.training.spec import DpoTraining
from seva_exp.training.steps import StepTrainer
from seva_exp.training.trl_private import pair_loss

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

    def __call__(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(**{k: value[self.rows] for k, value in self.outputs.items()})


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
        self.precompute_ref_logps = True  # TRL's loss takes the reference from its inputs

    def count(self, batch: Any) -> Counter[str]:
        rejected, views = len(batch["rejected_owner"]), len(batch["view_owner"])
        preferences = len(batch["input_ids"]) - rejected - views
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
        outputs = self.forward(model, inputs)
        policy, lengths = outputs["log_probs"].sum(dim=1), inputs["completion_mask"].sum(dim=1)
        if self._starts_equal and self.state.global_step == 0:
            self._check_start(policy.detach(), reference, lengths)
        self._note(lengths, policy.detach(), reference)
        # Also asked for where its loss has no part: the metrics are made there.
        loss = self._trl_loss(inputs, outputs, reference, owners["rejected_owner"])
        loss = loss * self.share("pairs") if self._spec.trl_terms else torch.zeros_like(loss)
        scores = self._scores(policy, reference, **owners)
        for name, weight in self._spec.our_terms.items():
            value = OURS[name](scores).mean()
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

    def _trl_loss(self, inputs: Any, outputs: Any, reference: Tensor, owner: Tensor) -> Tensor:
        """TRL's own loss and metrics over the M pairs, from rows that are there already."""
        rejected = self._seen[-1]["preferences"] + torch.arange(len(owner), device=owner.device)
        stock = torch.cat([owner, rejected])
        pairs = {key: inputs[key][stock] for key in ("input_ids", "completion_mask")}
        pairs |= {
            "attention_mask": inputs["attention_mask"],  # counted only: what the model really saw
            "ref_chosen_logps": reference[owner],
            "ref_rejected_logps": reference[rejected],
        }
        with self.on_this_rank():
            return pair_loss(self, Replay(outputs, stock), pairs)

    def _scores(
        self, policy: Tensor, reference: Tensor, rejected_owner: Tensor, view_owner: Tensor
    ) -> Scores:
        """What our losses look at, cut out of the R rows."""
        sizes = [self._seen[-1]["preferences"], len(rejected_owner), len(view_owner)]
        chosen, rejected, views = (self.beta * (policy - reference)).split(sizes)
        logprob = policy[: sizes[0]]
        return Scores(logprob, chosen, rejected, rejected_owner, views, view_owner)

    def _check_start(self, policy: Tensor, reference: Tensor, lengths: Tensor) -> None:
        """Before the first step, policy and reference must be the same function."""
        dtype = self.model.dtype
        far = apart(policy, reference, lengths)
        if not far <= START_TOLERANCE[dtype]:
            raise StageError(
                "align: before any training the log-probabilities of policy and reference differ "
                f"by {far:.2g} nats per root of a token, which rounding in {dtype} does not "
                "explain: the reference is wrong, or was made in another number format. "
                "force=[reference] makes it anew."
            )


def trainer_for(
    job: TrainingJob[DpoTraining], preferences: Sequence[Preference]
) -> PreferenceTrainer:
    """The trainer with policy and reference in place. TRL is always given a new adapter: given
    one to go on with, it would hold a copy as reference, wanted or not.

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
        if job.reference == "start" and any(p.reference is None for p in preferences):
            add_reference(trainer.model, start)
    first = [preferences[i] for i in order][: trainer.args.per_device_train_batch_size]
    share_out(vlm, trainer.accelerator)
    forward = forward_for(vlm, trainer.model, first, spec.fast, job.placement)
    trainer.forward, trainer.data_collator = forward, forward.collator(preferences)
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
