"""Preferences to the log-probabilities of their answers, on the packed sequence or on plain rows.

Shape legend: R rows, L tokens of the longest row, A tokens of the longest answer and one before, S
tokens of all answers, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.models.attention import attends_by
from seva_exp.training.collate import IGNORED, OWNERS, Preference, PreferenceCollator
from seva_exp.training.families import refusal, trained
from seva_exp.training.packed import PackedCollator, PackedSequence
from seva_exp.training.packed_attention import NAME
from seva_exp.training.peft_private import COPY
from seva_exp.training.precision import computed_in_float32, mixed_precision
from seva_exp.training.prefetch import on_device
from seva_exp.training.sharding import refuses_packed
from seva_exp.training.spec import Fast
from seva_exp.training.vision import FeatureCache

Collator = Callable[[list[dict[str, Any]]], dict[str, Any]]
KNOWN = ("completion_mask", "reference", "token_weights", "weighted_reference", "agreement")
"""What a batch of plain rows holds beside what the model takes."""
FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")
"""Per token, of TRL's fused LM head."""
TOLERANCE = 1e-3
"""How far (``apart``) the two ways may be apart in a batch, computed in float32. Right ones are
apart by 2e-6 on tiny models; the mildest mistake that we know of (answers one position too far)
makes 0.009. In bfloat16 that could not be told from rounding (perf/rounding.py)."""
ROUNDED = 0.3
"""The same in half precision (weights of 4 bits are multiplied in it): of 32 layers' rounding."""


class Forward(Protocol):
    """The forward pass of a training: a batch becomes rows, rows log-probabilities."""

    description: str
    """One line for people: which way, and why not the other."""

    def collator(self, preferences: Sequence[Preference]) -> Collator: ...

    def __call__(self, model: Any, inputs: Any, hidden: bool = False) -> dict[str, Tensor]:
        """FIELDS, each [R, L - 1] or [R, A - 1], 0 outside answers; with ``hidden`` also ``hidden``
        [S, W]: the last layer's output where the answers' tokens are predicted, row by row."""
        ...

    def close(self) -> None:
        """Leave the model as it was."""
        ...


class PlainForward:
    """TRL's way: a whole sequence, with its picture, for every answer."""

    def __init__(self, vlm: VisionLanguageModel, description: str = "plain rows") -> None:
        self._vlm = vlm
        self.description = description

    def collator(self, preferences: Sequence[Preference]) -> Collator:
        return PreferenceCollator(self._vlm, preferences)

    def __call__(self, model: Any, inputs: Any, hidden: bool = False) -> dict[str, Tensor]:
        rows = {k: v for k, v in inputs.items() if k not in KNOWN}
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORED)
        with last_hidden(self._vlm) as seen:
            out = model(**rows, labels=labels, fused_lm_head=True)
        found = _fields(out)
        return found | {"hidden": seen[0][:, :-1][answers_of(inputs)]} if hidden else found

    def close(self) -> None:
        """It changes nothing."""


class PackedForward:
    """Every prompt once, every picture once, the LM head on answers only.

    TRL's fused head does the scoring; hooks on the model below it put the pictures' features in,
    take the scored places out, and spare the last layer the others.
    """

    description = "packed sequence"

    def __init__(self, vlm: VisionLanguageModel, vision: FeatureCache) -> None:
        self._vlm = vlm
        self._vision = vision
        inner = vlm.model.base_model
        last = vlm.model.get_decoder().layers[-1]
        self._row: PackedSequence | None = None
        hooks = [
            inner.register_forward_pre_hook(self._see, with_kwargs=True),
            inner.register_forward_hook(self._pick, with_kwargs=True),
            last.self_attn.register_forward_pre_hook(self._note, with_kwargs=True),
            *(part.register_forward_pre_hook(self._narrow) for part in _parts(last)),
            *(part.register_forward_hook(self._widen) for part in _parts(last)),
        ]
        # Until close(): checkpointing calls the layers again in the backward pass.
        self._changed = ExitStack()
        for hook in hooks:
            self._changed.callback(hook.remove)
        self._changed.enter_context(attends_by(vlm.model, NAME))

    def collator(self, preferences: Sequence[Preference]) -> Collator:
        return PackedCollator(self._vlm, preferences, self._vision)

    def __call__(self, model: Any, inputs: Any, hidden: bool = False) -> dict[str, Tensor]:
        row = inputs["shared"]
        with last_hidden(self._vlm) as seen:
            out = model(
                input_ids=row.ids,
                position_ids=row.positions,
                shift_labels=row.labels,
                shared=row,
                fused_lm_head=True,  # which asks for no cache of keys and values
            )
        found = {name: by_row(values, inputs) for name, values in _fields(out).items()}
        return found | {"hidden": seen[0][0]} if hidden else found

    def _see(self, module: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Inside the model's own forward, where sharded weights are gathered."""
        if "shared" not in kwargs:
            return None
        features = self._vision.features(kwargs["shared"].pictures)
        return args, {**kwargs, "mm_encoder_outputs": {"image": features}}

    def _pick(self, module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        if "shared" in kwargs:
            out.last_hidden_state = out.last_hidden_state[:, kwargs["shared"].scored]
        return out

    # The last layer is needed where answers are predicted, but for its keys and values: no later
    # layer looks at the other places. The call of its attention, first of all, tells the row.
    def _note(self, module: Any, args: Any, kwargs: Any) -> None:
        assert kwargs.get("past_key_values") is None, "checkpointing would drop it in silence"
        self._row = kwargs.get("shared")

    def _narrow(self, module: Any, args: Any) -> Any:
        if self._row is None:
            return args
        self._length = args[0].shape[1]
        return (args[0][:, self._row.places], *args[1:])

    def _widen(self, module: Any, args: Any, out: Tensor) -> Tensor:
        if self._row is None:
            return out
        wide = out.new_zeros(out.shape[0], self._length, out.shape[2])
        return wide.index_copy(1, self._row.places, out)

    def close(self) -> None:
        self._changed.close()


def _parts(layer: Any) -> tuple[Any, ...]:
    """What a decoder layer computes place by place, without keys and values."""
    return layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp


def answers_of(inputs: Any) -> Tensor:
    """Where in FIELDS the answers' tokens are: [R, L - 1] or [R, A - 1]."""
    return inputs["completion_mask"][:, 1:].bool()


def labels_of(inputs: Any) -> Tensor:
    """The answers' tokens [S], row by row."""
    return inputs["input_ids"][:, 1:][answers_of(inputs)]


def by_row(values: Tensor, inputs: Any) -> Tensor:
    """Values of the answers' tokens [S] as a table like FIELDS."""
    mask = answers_of(inputs)
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


@contextmanager
def last_hidden(vlm: VisionLanguageModel) -> Iterator[list[Tensor]]:
    """The last layer's output of the forward pass inside the block, as the LM head gets it."""
    seen: list[Tensor] = []

    def see(module: Any, args: Any, out: Any) -> None:
        seen.append(out.last_hidden_state)

    hook = vlm.model.base_model.register_forward_hook(see)
    try:
        yield seen
    finally:
        hook.remove()


def _fields(out: Any) -> dict[str, Tensor]:
    """Those of FIELDS that the head was asked for."""
    return {name: out[name] for name in FIELDS if name in out}


def forward_for(
    vlm: VisionLanguageModel,
    model: Any,
    first: Sequence[Preference],
    fast: Fast,
    placement: Placement,
) -> Forward:
    """The way that ``fast`` asks for. The packed sequence is compared with plain rows on ``first``,
    in float32, before it is taken; raises StageError where ``fast`` is ``on`` and it can't be.

    ``model`` is what is called: ``vlm.model`` with TRL's fused head, or an adapter around it.
    """
    if fast == "off":
        return PlainForward(vlm)
    why = refusal(vlm) or refuses_packed() or _difference(vlm, model, first, placement)
    if not why:
        return PackedForward(vlm, vision_for(vlm, placement))
    if fast == "on":
        raise StageError(f"dpo.fast=on: {why}. Use dpo.fast=auto or off.")
    placement.warn(f"dpo.fast=auto: the slower plain rows are taken, since {why}")
    return PlainForward(vlm, f"plain rows: {why}")


def vision_for(vlm: VisionLanguageModel, placement: Placement) -> FeatureCache:
    """Features that stages share, where the projector is the base model's own."""
    if any(COPY in name for name, _ in vlm.model.named_parameters()):
        return FeatureCache(vlm, placement.vision_cache, projects_pictures(vlm))
    return FeatureCache(vlm, placement.vision_cache, kept=placement.features)


def projects_pictures(vlm: VisionLanguageModel) -> bool:
    """Whether the projector is trained, and runs in each step."""
    return any(COPY in name for name, _ in trained(vlm))


def scored(
    forward: Forward,
    model: Any,
    batch: dict[str, Any],
    placement: Placement,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [R] of a collated batch's answers, without gradients, and their lengths
    [R] in tokens. ``dtype`` is the number format to compute in."""
    inputs, found = passed(forward, model, batch, placement, dtype)
    lengths = inputs["completion_mask"].sum(dim=1)
    return found["log_probs"].float().sum(dim=1).cpu(), lengths.cpu()


def passed(
    forward: Forward,
    model: Any,
    batch: dict[str, Any],
    placement: Placement,
    dtype: torch.dtype,
    hidden: bool = False,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the forward pass of a collated batch takes, on the device, and what it gives, without
    gradients."""
    device = torch.device(placement.device)
    inputs = on_device({k: v for k, v in batch.items() if k not in OWNERS}, device)
    with torch.no_grad(), mixed_precision(device, dtype):
        return inputs, forward(model, inputs, hidden)


def _difference(
    vlm: VisionLanguageModel, model: Any, first: Sequence[Preference], placement: Placement
) -> str:
    """What is wrong with the packed sequence's numbers on ``first``; empty if nothing is. In
    float32; where memory does not suffice for that, as the model is, and one line says so."""
    try:
        with computed_in_float32(model, vlm.model.get_decoder().layers):
            far = _both_ways(vlm, model, first, placement, torch.float32)
        return _too_far(far, ROUNDED if getattr(vlm.model, "is_quantized", False) else TOLERANCE)
    except torch.OutOfMemoryError:
        if vlm.model.dtype == torch.float32:
            raise
    kind = str(vlm.model.dtype).removeprefix("torch.")
    placement.warn(
        "dpo.fast: there is no memory to compare the packed sequence with plain rows in float32; "
        f"in {kind}, as they are compared now, only gross mistakes show. A lower "
        "machine.train_batch_size makes room."
    )
    return _too_far(_both_ways(vlm, model, first, placement, vlm.model.dtype), ROUNDED)


def _both_ways(
    vlm: VisionLanguageModel,
    model: Any,
    first: Sequence[Preference],
    placement: Placement,
    dtype: torch.dtype,
) -> float:
    """How far they are ``apart`` on ``first``."""
    rows = [{"row": i} for i in range(len(first))]
    plain = PlainForward(vlm)
    one, _ = scored(plain, model, plain.collator(first)(rows), placement, dtype)
    with closing(PackedForward(vlm, FeatureCache(vlm, 0, projects_pictures(vlm)))) as shared:
        other, lengths = scored(shared, model, shared.collator(first)(rows), placement, dtype)
    return apart(one, other, lengths)


def _too_far(far: float, tolerance: float) -> str:
    if far <= tolerance:  # a number that is not one is not below
        return ""
    return f"on the first batch it is {far:.2g} nats off the plain rows, per root of a token"


def apart(one: Tensor, other: Tensor, lengths: Tensor) -> float:
    """The distance by which log-probabilities [R] of answers of so many tokens [R] are apart, in
    nats per root of a token. Roundings of T tokens add up to about the root of T times that of one,
    so that short answers are allowed more a token than long ones."""
    return ((one - other).square().sum() / lengths.sum()).sqrt().item()
