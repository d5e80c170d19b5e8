"""A question about a picture, as an OpenAI-compatible server takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from seva_exp.core.interfaces import TOO_LONG, AnswerEngine, ModelSource, Reply, Request
from seva_exp.core.machine import Server
from seva_exp.core.randomness import seed_for
from seva_exp.decoding.spec import Generation, ServerGeneration
from seva_exp.served.chat import TooLong, reply_of
from seva_exp.served.pictures import data_url

if TYPE_CHECKING:
    from httpx2 import Response

SEED_BITS = 31
"""Some servers hand the seed to NumPy or a C int."""


@dataclass(frozen=True)
class Chat:
    """The chat requests of one view, put to ``model``. Sampled answers draw from (``seed``,
    ``purpose``, request's id)."""

    generation: Generation
    source: ModelSource
    seed: int
    purpose: str
    model: str | None

    def body(self, request: Request) -> bytes:
        """The request's JSON: one user message, the picture (if there is one) before the text."""
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        if request.load:
            content.insert(0, self.picture(request, request.load))
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.source.system_prompt:
            messages.insert(0, {"role": "system", "content": self.source.system_prompt})
        values = {
            "model": self.model,
            "messages": messages,
            "max_tokens": request.max_new_tokens,
            "temperature": self.generation.temperature,
            "top_p": self.generation.top_p,
        }
        if self.generation.seeded:
            seed = seed_for(self.seed, self.purpose, request.id)
            values["seed"] = seed % 2**SEED_BITS
        return json.dumps(values | self.more()).encode()

    def picture(self, request: Request, load: Callable[[], Image.Image]) -> dict[str, Any]:
        """The picture's part of the message (PNG, its own size)."""
        picture = self.source.squared(load())
        return {"type": "image_url", "image_url": {"url": data_url(picture)}}

    def more(self) -> dict[str, Any]:
        """What a kind of server takes beside that."""
        return {}


def server_engine(
    server: Server,
    chat: Chat,
    warn: Callable[[str], None] = lambda text: None,
    read: Callable[[Request, Response], Reply] | None = None,
    keeper: Any = None,
) -> AnswerEngine:
    """The engine that asks ``server`` in the way of ``chat``, of which ``read`` makes replies;
    ``keeper`` starts it again when it dies."""
    from seva_exp.served.asking import ChatClient

    name = "sample {0.id}".format
    return ChatClient(server, chat.body, read or said, name, warn, keeper)


def said(request: Request, response: Response) -> Reply:
    """What the server said; one question that does not fit its context ends nothing."""
    try:
        return reply_of(request.id, response)
    except TooLong:
        return Reply(request.id, "", (), TOO_LONG)


def check(server: Server, generation: ServerGeneration, source: ModelSource) -> None:
    """Ask for one token about a grey picture. Raises InputError where that is not answered: the
    server is not there, has no such model, or it takes no pictures."""
    from seva_exp.served import endpoint

    request = Request("check", "check", _grey, "What is in this picture?", 1)
    body = Chat(generation, source, 0, "check", generation.served_model).body(request)
    named = f"generation.served_model={generation.served_model}"
    endpoint.check(server, body, named, "a question about a picture")


def _grey() -> Image.Image:
    return Image.new("RGB", (336, 336), "grey")
