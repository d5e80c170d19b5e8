"""Generation by transformers' own ``generate`` in batches: for models that our attention is not
proven for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from seva_exp.core.errors import is_out_of_memory
from seva_exp.core.interfaces import (
    TOO_LONG,
    Encoded,
    EncodedImage,
    Reply,
    Request,
    VisionLanguageModel,
)
from seva_exp.decoding.budget import even_alone
from seva_exp.decoding.rows import ImageChange
from seva_exp.decoding.sampling import Sampling
from seva_exp.models.context import answer_limit, encoded_within

KEPT = 64
"""Encoded pictures that are kept, the last ones."""


def cut_batches(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """Batches of one bound on the answer's length. Pictures asked several times: their questions
    together, so that each is encoded once. Pictures asked once: like prompts together, since their
    answers are of like length. What has no picture is in batches of its own."""
    if alone := [request for request in requests if request.load is None]:
        seen = [request for request in requests if request.load]
        return (cut_batches(seen, size) if seen else []) + _cut(alone, size, shared=False)
    pictures = {request.image_key for request in requests}
    return _cut(requests, size, shared=len(pictures) < len(requests))


def _cut(requests: Sequence[Request], size: int, shared: bool) -> list[list[Request]]:
    def place(r: Request) -> tuple[str | int, ...]:
        return (r.image_key, r.id) if shared else (len(r.prompt), r.prompt, r.id)

    batches = []
    for length in sorted({r.max_new_tokens for r in requests}):
        ordered = sorted((r for r in requests if r.max_new_tokens == length), key=place)
        batches += [ordered[i : i + size] for i in range(0, len(ordered), size)]
    return batches


class Batches:
    """``batch_size`` requests at once, each with its picture; a batch that does not fit into
    memory is halved."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        batch_size: int,
        change: ImageChange | None,
        sampling: Sampling | None,
        logprobs: bool,
    ) -> None:
        self._vlm = vlm
        self._batch_size = batch_size
        self._change = change
        self._sampling = sampling
        self._logprobs = logprobs
        self._images: dict[str, EncodedImage] = {}

    def run(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield the replies of one batch at a time."""
        for batch in cut_batches(requests, self._batch_size):
            yield from self._answer(batch)

    def _answer(self, batch: list[Request]) -> Iterator[list[Reply]]:
        replies = None
        try:
            replies = self._generate(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise even_alone(batch[0]) from error
        if replies is not None:
            yield replies
        else:  # outside of the handler, which keeps the failed attempt's tensors
            self._batch_size = half = -(-len(batch) // 2)
            yield from self._answer(batch[:half])
            yield from self._answer(batch[half:])

    def _image(self, request: Request) -> EncodedImage | None:
        """The request's encoded image, the view applied; None where it has none."""
        key, load = request.image_key, request.load
        if load is None:
            return None
        if key not in self._images:
            image = self._vlm.encode_image(load())
            self._images[key] = self._change(request, image) if self._change else image
            if len(self._images) > KEPT:
                del self._images[next(iter(self._images))]
        return self._images[key]

    @torch.inference_mode()
    def _generate(self, batch: list[Request]) -> list[Reply]:
        asked = {
            r.id: encoded_within(self._vlm, self._image(r), r.prompt, r.context) for r in batch
        }
        unfit = [Reply(r.id, "", (), TOO_LONG) for r in batch if asked[r.id] is None]
        batch = [r for r in batch if asked[r.id] is not None]
        encoded = [found for found in asked.values() if found is not None]
        return unfit + (self._answers(batch, encoded) if batch else [])

    def _answers(self, batch: list[Request], encoded: list[Encoded]) -> list[Reply]:
        """Those that fit the model's context. An answer ends where that does."""
        limits = [answer_limit(self._vlm, e, batch[0].max_new_tokens) for e in encoded]
        inputs = left_padded(encoded, self._vlm.pad_id, self._vlm.device)
        width = inputs["input_ids"].shape[1]
        if batch[0].load:
            inputs |= self._vlm.image_inputs([one.image for one in encoded])
        if self._sampling:
            inputs["logits_processor"] = self._sampling.processors([r.id for r in batch])
        out = self._vlm.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max(limits),
            return_dict_in_generate=True,
            output_logits=self._logprobs,
        )
        rows = zip(out.sequences[:, width:].tolist(), limits, strict=True)
        tokens = [self._until_end(row[:limit]) for row, limit in rows]
        logprobs = self._of(out, width, tokens) if self._logprobs else [()] * len(batch)
        return [
            reply_to(self._vlm, r, t, p) for r, t, p in zip(batch, tokens, logprobs, strict=True)
        ]

    def _of(self, out: Any, width: int, tokens: list[list[int]]) -> list[tuple[float, ...]]:
        """The log-probabilities of each row's tokens."""
        every = torch.stack(out.logits, dim=1).float().log_softmax(dim=-1)
        taken = every.gather(2, out.sequences[:, width:, None])[..., 0].tolist()
        return [tuple(row[: len(own)]) for row, own in zip(taken, tokens, strict=True)]

    def _until_end(self, ids: list[int]) -> list[int]:
        for position, token in enumerate(ids):
            if token in self._vlm.eos_ids:
                return ids[: position + 1]
        return ids


def reply_to(
    vlm: VisionLanguageModel, request: Request, tokens: Sequence[int], logprobs: Sequence[float]
) -> Reply:
    """The generated ids as a reply."""
    ended = bool(tokens) and tokens[-1] in vlm.eos_ids
    whole = len(tokens) >= request.max_new_tokens
    stop = "eos" if ended else "length" if whole else TOO_LONG
    return Reply(request.id, vlm.decode(tokens), tuple(tokens), stop, tuple(logprobs))


def left_padded(rows: Sequence[Encoded], pad: int, device: torch.device) -> dict[str, Any]:
    """input_ids, attention_mask and token types [B, L], padded on the left."""
    width = max(len(row.ids) for row in rows)

    def table(values: list[tuple[int, ...]], fill: int) -> torch.Tensor:
        return torch.tensor([(fill,) * (width - len(v)) + v for v in values], device=device)

    out = {
        "input_ids": table([row.ids for row in rows], pad),
        "attention_mask": table([(1,) * len(row.ids) for row in rows], 0),
    }
    for key in rows[0].types:
        out[key] = table([row.types[key] for row in rows], 0)
    return out
