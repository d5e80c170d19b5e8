"""Where the host may wait for the GPU, and why. What is not here fails a test.

Generation's steps and training's micro-steps are also counted (test_waits.py, test_shapes.py): a
place that is allowed once a step must not come twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class Allowed:
    """``place``: ``file:function``, with ``*`` for any; ``kinds`` as in ``ledger.Wait``."""

    place: str
    kinds: tuple[str, ...]
    why: str


ALLOWED = (
    # Loading and saving, once a stage
    Allowed("transformers/core_model_loading.py:*", ("upload",), "a weight goes to its GPU"),
    Allowed(
        "models/vlm.py:load", ("upload",), "what is in no file, such as the rotary frequencies"
    ),
    Allowed(
        "models/weights.py:*", ("tolist", "item", "upload"), "weights, and whether all are finite"
    ),
    Allowed(
        "models/adapter.py:*", ("upload", "item"), "an adapter's weights; whether to merge them"
    ),
    Allowed("training/steps.py:__init__", ("upload",), "the new adapter goes to the GPU"),
    Allowed("training/lora.py:load_adapter", ("upload",), "the adapter to go on with"),
    Allowed("training/lora.py:write_adapter", ("download",), "the adapter goes to its file"),
    Allowed("training/sharding.py:*", ("download",), "the same"),
    # Generation
    Allowed("decoding/choosing.py:__init__", ("upload",), "ids no answer may hold, once a run"),
    Allowed(
        "decoding/choosing.py:write", ("download",), "the rows' tokens of some steps: who has ended"
    ),
    Allowed(
        "decoding/cuda_graphs.py:_played", ("item",), "a recording's first play against the step"
    ),
    Allowed(
        "decoding/scheduler.py:_forward", ("item",), "transformers counts a prefill's placeholders"
    ),
    # Reference and training
    Allowed("models/vision.py:moved", ("download", "upload"), "features kept in main memory"),
    Allowed("training/forward.py:scored", ("download",), "a batch's scores are the stage's result"),
    Allowed(
        "training/forward.py:apart", ("item",), "policy and reference compared, in the first step"
    ),
    Allowed("training/forward.py:__call__", ("item",), "transformers counts the placeholders"),
    Allowed(
        "training/prefetch.py:on_device",
        ("upload of pageable memory",),
        "pictures of the first batch in plain rows, before there is a loader",
    ),
    Allowed("training/dpo.py:count", ("tolist",), "a micro-batch's tokens, for its weight"),
    Allowed("training/dpo.py:_note", ("item",), "metrics, as TRL's"),
    Allowed("training/dpo.py:compute_loss", ("item",), "the metrics of our losses"),
    Allowed("training/trl_private.py:pair_loss", ("item", "boolean index"), "TRL's metrics"),
    Allowed("training/finetune.py:*", ("item",), "TRL's metrics"),
    Allowed(
        "training/driver.py:run", ("item", "upload"), "the Trainer's loss and norm, once a step"
    ),
    Allowed("training/steps.py:_score", ("item", "upload of pageable memory"), "what is held out"),
    Allowed("training/steps.py:get_batch_samples", ("upload",), "the Trainer's count of tokens"),
    Allowed("training/steps.py:weights_are_finite", ("item",), "once a step"),
    Allowed("training/steps.py:save_model", ("download",), "a checkpoint"),
)


def not_allowed(waits: Iterable[tuple[str, str, int]]) -> list[str]:
    """Of (kind, place, how often) those that no entry covers."""
    return [
        f"{kind} at {place}, {count} times"
        for kind, place, count in waits
        if not any(fnmatch(place, one.place) and kind in one.kinds for one in ALLOWED)
    ]
