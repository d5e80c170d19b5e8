"""The wire format: a question as an OpenAI-compatible server takes it, and what it replies."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from io import BytesIO
from math import inf
from time import time
from typing import TYPE_CHECKING, Any

from seva_exp.generation.spec import ServerGeneration
from seva_exp.interfaces import ModelSource, Reply, Request
from seva_exp.randomness import seed_for

if TYPE_CHECKING:
    from httpx2 import Response
    from PIL.Image import Image

PATH = "chat/completions"
STOPS = {"stop": "eos", "length": "length"}
"""finish_reason -> a reply's ``stop``."""
PASSING = {408, 409, 429}
"""Statuses below 500 that may be another one at the next try."""
SEED_BITS = 31
"""Some servers hand the seed to NumPy or a C int."""
LONGEST_SAID = 300


class Refusal(Exception):
    """The server will not answer this question, however often it is asked."""


class PassingFault(Exception):
    """Asked again, the server may answer; ``wait``: not before so many seconds, if it said so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True)
class Chat:
    """How the questions of one view are put. What is sampled draws from (``seed``, ``purpose``,
    request's id)."""

    generation: ServerGeneration
    source: ModelSource
    seed: int
    purpose: str

    def body(self, request: Request) -> bytes:
        """The request's JSON: one user message, the picture (PNG, its own size) before the text."""
        picture = {"type": "image_url", "image_url": {"url": data_url(self._picture(request))}}
        content = [picture, {"type": "text", "text": request.prompt}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.source.system_prompt:
            messages.insert(0, {"role": "system", "content": self.source.system_prompt})
        values = {
            "model": self.generation.served_model,
            "messages": messages,
            "max_tokens": request.max_new_tokens,
            "temperature": self.generation.temperature,
            "top_p": self.generation.top_p,
        }
        if self.generation.seeded:
            seed = seed_for(self.seed, self.purpose, request.id)
            values["seed"] = seed % 2**SEED_BITS
        return json.dumps(values).encode()

    def _picture(self, request: Request) -> Image:
        return self.source.squared(request.load())


def data_url(picture: Image) -> str:
    """The picture without loss, as text."""
    file = BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def reply_of(id: str, response: Response) -> Reply:
    """What the server said. Raises Refusal or PassingFault where that is no answer."""
    status = response.status_code
    if status in PASSING or status >= 500:
        raise PassingFault(said(response), _retry_after(response))
    if not response.is_success:
        raise Refusal(said(response))
    try:
        choice = response.json()["choices"][0]
        text, reason = _text(choice["message"]["content"]), str(choice["finish_reason"])
    except (ValueError, LookupError, TypeError):
        raise PassingFault(f"no chat completion came, but {_shortened(response.text)}") from None
    if reason not in STOPS:
        raise Refusal(f"it ended the answer with finish_reason={reason}")
    return Reply(id, text.strip(), (), STOPS[reason])


def _text(content: Any) -> str:
    """Of a message: a string, none, or a list of parts, of which those of type text count. Raises
    LookupError or TypeError for another shape."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    if content is None or isinstance(content, str):
        return content or ""
    raise TypeError


def said(response: Response) -> str:
    """The status and the server's own words, for a person."""
    try:
        told: Any = response.json()
    except ValueError:
        told = response.text
    for key in ("error", "message", "detail"):  # {"error": {"message": ...}}, {"detail": ...}
        if isinstance(told, dict) and told.get(key):
            told = told[key]
    return f"HTTP {response.status_code}: {_shortened(told)}"


def _shortened(value: object) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split()).rstrip(" .")
    return text if len(text) <= LONGEST_SAID else f"{text[:LONGEST_SAID]} ..."


def _retry_after(response: Response) -> float | None:
    """Seconds: the header holds them, or a date. None where it holds neither."""
    value = response.headers.get("retry-after", "")
    with suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < inf else None
    with suppress(ValueError):
        when = parsedate_to_datetime(value)
        if when.tzinfo is None:  # RFC 9110's oldest form names no zone and means GMT
            when = when.replace(tzinfo=UTC)
        return max(0.0, when.timestamp() - time())
    return None
