"""A question about a picture, as the run's own vLLM takes it, and its reply: the ids of tokens, as
this process would have generated them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any

from seva_exp.core.interfaces import (
    TOO_LONG,
    AnswerEngine,
    ModelSource,
    Placement,
    Reply,
    Request,
    VisionLanguageModel,
)
from seva_exp.decoding.openai_chat import Chat, server_engine
from seva_exp.decoding.spec import VllmGeneration
from seva_exp.inputs.views import View
from seva_exp.models.vision import features_of
from seva_exp.served.chat import PassingFault, Refusal, TooLong, json_of, reply_of

if TYPE_CHECKING:
    from httpx2 import Response
    from PIL.Image import Image

NEVER = -100.0
"""Added to a logit whose token must not come; vLLM takes no infinite bias."""


@dataclass(frozen=True)
class VllmChat(Chat):
    """The chat requests of one view. ``vlm`` encodes and decodes, without weights; ``features``:
    where a view changes pixels, the picture's features take its place."""

    vlm: VisionLanguageModel
    features: Callable[[Request], Any] | None = None

    def picture(self, request: Request, load: Callable[[], Image]) -> dict[str, Any]:
        if self.features is None:
            return super().picture(request, load)
        return {"type": "image_embeds", "image_embeds": packed(self.features(request))}

    def more(self) -> dict[str, Any]:
        """No answer may hold an image token; what ends an answer is this process's."""
        never = self.vlm.model.generation_config.suppress_tokens
        return {
            "logit_bias": {str(id): NEVER for id in never},
            "stop_token_ids": sorted(self.vlm.eos_ids),
            "return_token_ids": True,
        }


def packed(features: Any) -> str:
    """Features [tokens, width] as text."""
    import torch

    file = BytesIO()
    torch.save(features.detach().cpu().clone(), file)
    return base64.b64encode(file.getvalue()).decode()


def vllm_engine(
    generation: VllmGeneration,
    source: ModelSource,
    load_model: Callable[[], VisionLanguageModel],
    placement: Placement,
    view: View,
    purpose: str,
) -> AnswerEngine:
    """The engine of one view's questions at the run's own vLLM."""
    assert placement.vllm
    features = None
    if view.augmentation and view.augmentation.space == "pixels":
        features = Features(load_model(), view)  # before vLLM takes what memory is left
    running = placement.vllm()
    chat = VllmChat(generation, source, view.seed, purpose, running.name, running.vlm, features)
    read = ReplyReader(running.vlm, running.context, placement.warn)
    return server_engine(running.server.address, chat, placement.warn, read, running.server)


class Features:
    """Pictures' features behind a view's change of pixels, by the model of this process."""

    def __init__(self, vlm: VisionLanguageModel, view: View) -> None:
        self._vlm, self._view = vlm, view
        self._alone = Lock()

    def __call__(self, request: Request) -> Any:
        """[tokens, width]"""
        import torch

        assert request.load
        with self._alone, torch.inference_mode():
            image = self._view.pixels(self._vlm, self._vlm.encode_image(request.load()), request.id)
            (found,) = features_of(self._vlm, [image])
            (features,) = found.pooler_output
            return features


class ReplyReader:
    """Makes replies of vLLM's responses. ``context``: the tokens that it has room for, where they
    are fewer than the model's own."""

    def __init__(
        self, vlm: VisionLanguageModel, context: int | None, warn: Callable[[str], None]
    ) -> None:
        self._vlm, self._context, self._warn = vlm, context, warn
        self._compared = False

    def __call__(self, request: Request, response: Response) -> Reply:
        try:
            reply_of(request.id, response)
        except TooLong:
            return self._too_long(request, ())
        self._compare(request, response)
        tokens = _ids(json_of(response)["choices"][0], "token_ids")
        if tokens and tokens[-1] in self._vlm.eos_ids:
            stop = "eos"
        elif len(tokens) >= request.max_new_tokens:
            stop = "length"
        else:  # vLLM cuts what its context has no room for, without a word
            return self._too_long(request, tokens)
        return Reply(request.id, self._vlm.decode(tokens), tokens, stop)

    def _compare(self, request: Request, response: Response) -> None:
        """The first prompt, as vLLM has put it, with this process's."""
        if self._compared:
            return
        self._compared = True
        if request.load:
            own = self._vlm.encode(self._vlm.encode_image(request.load()), request.prompt).ids
        else:
            own = self._vlm.encode_text(request.prompt).ids
        if _ids(json_of(response), "prompt_token_ids") != own:
            self._warn(
                "vLLM puts the question in other tokens than this process would (its use of the "
                "chat template): answers are not those of generation=hf"
            )

    def _too_long(self, request: Request, tokens: tuple[int, ...]) -> Reply:
        if self._context:
            raise Refusal(
                f"it needs more than machine.vllm.context={self._context} tokens. Raise it, or "
                "leave it null (the model's own context)"
            )
        return Reply(request.id, self._vlm.decode(tokens), tokens, TOO_LONG)


def _ids(content: Any, name: str) -> tuple[int, ...]:
    found = content.get(name)
    if not isinstance(found, list):
        raise PassingFault(f"the reply has no {name}")
    return tuple(found)
