"""The in-process engine: batches of questions in, batches of answers out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from seva_exp.generation.sampling import Sampling
from seva_exp.interfaces import Encoded, EncodedImage, Reply, Request, VisionLanguageModel

ImageChange = Callable[[Request, EncodedImage], EncodedImage]
"""A pixel-space view of one request's image."""


def cut_batches(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """Batches of one bound on the answer's length. Pictures asked several times: their questions
    together, features computed once. Pictures asked once: like prompts together, since their
    answers are of like length."""
    pictures = {request.image_key for request in requests}
    shared = len(pictures) < len(requests)

    def place(r: Request) -> tuple[str | int, ...]:
        return (r.image_key, r.id) if shared else (len(r.prompt), r.prompt, r.id)

    batches = []
    for length in sorted({r.max_new_tokens for r in requests}):
        ordered = sorted((r for r in requests if r.max_new_tokens == length), key=place)
        batches += [ordered[i : i + size] for i in range(0, len(ordered), size)]
    return batches


class Engine:
    """Generation on one loaded model, ``batch_size`` requests at once. ``change`` is a pixel-space
    view, or None; without ``sampling`` it is greedy."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        batch_size: int,
        change: ImageChange | None = None,
        keep: int = 64,
        sampling: Sampling | None = None,
    ) -> None:
        self._vlm = vlm
        self._batch_size = batch_size
        self._change = change
        self._sampling = sampling
        self._images: OrderedDict[str, EncodedImage] = OrderedDict()
        self._features: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._keep = keep

    def run(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield the replies of one batch at a time."""
        for batch in cut_batches(requests, self._batch_size):
            images = [self.image(request) for request in batch]
            encoded = [
                self._vlm.encode(image, request.prompt)
                for image, request in zip(images, batch, strict=True)
            ]
            tokens = self._generate(batch, encoded)
            yield [self._reply(r, t) for r, t in zip(batch, tokens, strict=True)]

    def image(self, request: Request) -> EncodedImage:
        """The request's encoded image, this engine's view applied; the last few are kept."""
        key = request.image_key
        if key not in self._images:
            image = self._vlm.encode_image(request.load())
            self._images[key] = self._change(request, image) if self._change else image
            if len(self._images) > self._keep:
                self._images.popitem(last=False)
        return self._images[key]

    @torch.inference_mode()
    def _generate(self, batch: list[Request], encoded: list[Encoded]) -> list[list[int]]:
        """New ids per row, padding after the end removed."""
        inputs = left_padded(encoded, self._vlm.pad_id, self._vlm.device)
        width = inputs["input_ids"].shape[1]
        inputs |= self._image_inputs(batch, encoded)
        if self._sampling:
            inputs["logits_processor"] = self._sampling.processors([r.id for r in batch])
        out = self._vlm.model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=batch[0].max_new_tokens
        )
        return [self._until_end(row) for row in out[:, width:].tolist()]

    def _image_inputs(self, batch: list[Request], encoded: list[Encoded]) -> dict[str, Any]:
        """Pixel inputs; or, where the family allows, each picture's features computed once."""
        if not _shares_features(self._vlm):
            return self._vlm.image_inputs([one.image for one in encoded])
        new = {
            request.image_key: one.image
            for request, one in zip(batch, encoded, strict=True)
            if request.image_key not in self._features
        }
        if new:
            self._add_features(new)
        rows = [self._features[request.image_key] for request in batch]
        while len(self._features) > self._keep:
            self._features.popitem(last=False)
        return {"mm_encoder_outputs": _encoder_outputs(rows)}

    def _add_features(self, images: dict[str, EncodedImage]) -> None:
        inputs = self._vlm.image_inputs(list(images.values()))
        features = self._vlm.model.get_image_features(**inputs, return_dict=True).pooler_output
        self._features.update(zip(images, features, strict=True))

    def _until_end(self, ids: list[int]) -> list[int]:
        for position, token in enumerate(ids):
            if token in self._vlm.eos_ids:
                return ids[: position + 1]
        return ids

    def _reply(self, request: Request, tokens: list[int]) -> Reply:
        ended = bool(tokens) and tokens[-1] in self._vlm.eos_ids
        text = self._vlm.decode(tokens)
        return Reply(request.id, text, tuple(tokens), "eos" if ended else "length")


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


def _shares_features(vlm: VisionLanguageModel) -> bool:
    """LLaVA-1.5's features are one block per picture whatever else is in the batch (tested)."""
    return vlm.model.config.model_type == "llava"


def _encoder_outputs(rows: list[torch.Tensor]) -> dict[str, Any]:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {"image": BaseModelOutputWithPooling(pooler_output=rows)}
