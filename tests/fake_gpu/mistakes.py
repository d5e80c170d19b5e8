"""Planted mistakes, each of a kind that once was there or may come: the tests must see them. A
function patches the package in its process."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

import torch


def row_left_on_the_cpu() -> None:
    """No one moves the packed sequence to the device."""
    from seva_exp.training.packed import PackedSequence

    PackedSequence.to = lambda row, device, **_: row  # type: ignore[method-assign]


def mask_made_on_the_cpu() -> None:
    """Who sees whom among a prompt's answers, made where the numbers are."""
    from seva_exp.training import packed_attention as shared_attention

    right = shared_attention.answer_mask
    shared_attention.answer_mask = lambda *call: right(*call).cpu()


def weights_of_attention_in_float32() -> None:
    """The softmax's number format, kept for the product with the values."""
    from seva_exp.decoding.kv_attention import Decode

    right = Decode._weights
    Decode._weights = lambda *call: right(*call).float()  # type: ignore[method-assign]


def item_in_the_decode_step() -> None:
    """A look at the logits, at each step."""
    from seva_exp.decoding.choosing import Chooser

    right = Chooser.__call__

    def choose(chooser: Any, logits: Any, *more: Any) -> Any:
        assert logits.max().item() < float("inf")
        return right(chooser, logits, *more)

    Chooser.__call__ = choose  # type: ignore[method-assign]


def item_in_the_recorded_step() -> None:
    """A look at what is seen, in each layer's attention."""
    from seva_exp.decoding.kv_attention import Decode

    right = Decode._unseen

    def unseen(step: Any, window: Any) -> Any:
        found = right(step, window)
        assert not found.all().item()
        return found

    Decode._unseen = unseen  # type: ignore[method-assign]


def positions_of_the_recording() -> None:
    """Where a step's keys go is made in main memory, so that a play would write to the places of
    the step that was recorded."""
    from seva_exp.decoding.scheduler import Scheduler

    right = Scheduler._step

    def step(loop: Any, shape: Any, axes: int, table: Any, members: Any) -> Any:
        return right(loop, shape, axes, loop._put(table.cpu()), members)

    Scheduler._step = step  # type: ignore[method-assign]


def cycles_left() -> None:
    """``release`` without a collection."""
    gc.collect = lambda *_: 0  # type: ignore[assignment]


def float32_products() -> None:
    """LoRA's products in the format of its weights, to which PEFT casts what comes in."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    torch.autocast.__enter__ = lambda context: context  # type: ignore[method-assign]
    torch.autocast.__exit__ = lambda *_: None  # type: ignore[method-assign, assignment]
    BaseTunerLayer.cast_input_dtype_enabled = property(lambda _: True, lambda *_: None)


def killed_at_step_2() -> None:
    """No mistake of the code: the machine's, before the second checkpoint."""
    from seva_exp.training.steps import StepLog

    right = StepLog.on_log

    def on_log(log: Any, args: Any, state: Any, *call: Any, **options: Any) -> None:
        right(log, args, state, *call, **options)
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    StepLog.on_log = on_log  # type: ignore[method-assign]
