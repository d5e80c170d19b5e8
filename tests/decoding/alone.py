"""What the engine is compared with: transformers' own ``generate``, one request at a time."""

from __future__ import annotations

from typing import Any

import torch

from seva_exp.core.interfaces import Reply, Request
from seva_exp.decoding.hf_generate import left_padded


def inputs_of(vlm: Any, request: Request) -> dict[str, Any]:
    """The prompt with its picture, a batch of one."""
    image = vlm.encode_image(request.load())
    encoded = vlm.encode(image, request.prompt)
    return left_padded([encoded], vlm.pad_id, vlm.device) | vlm.image_inputs([image])


@torch.inference_mode()
def alone(vlm: Any, request: Request) -> tuple[int, ...]:
    """The greedy answer's ids."""
    inputs = inputs_of(vlm, request)
    bound = request.max_new_tokens
    out = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=bound)
    return tuple(out[0, inputs["input_ids"].shape[1] :].tolist())


def by_id(replies: Any) -> dict[str, Reply]:
    """id -> reply of all that an engine yields; each comes once."""
    found = [reply for some in replies for reply in some]
    assert len({reply.id for reply in found}) == len(found)
    return {reply.id: reply for reply in found}
