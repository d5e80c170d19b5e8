"""The wire format of OpenAI-compatible servers: what they reply, and what that means."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf
from time import time
from typing import TYPE_CHECKING, Any

from seva_exp.core.interfaces import Reply

if TYPE_CHECKING:
    from httpx2 import Response

PATH = "chat/completions"
STOPS = {"stop": "eos", "length": "length"}
"""finish_reason -> a reply's ``stop``."""
PASSING = {408, 409, 429}
"""Statuses below 500 that may be another one at the next try."""
LONGEST_MESSAGE = 300


class Refusal(Exception):
    """The server will not answer this question, however often it is asked."""


class PassingFault(Exception):
    """Asked again, the server may answer; ``wait``: not before so many seconds, if it said so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


def reply_of(id: str, response: Response) -> Reply:
    """The server's reply. Raises Refusal or PassingFault where that is no answer."""
    status = response.status_code
    if status in PASSING or status >= 500:
        raise PassingFault(error_text(response), _retry_after(response))
    if not response.is_success:
        raise Refusal(error_text(response))
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


def tokens_of(response: Response) -> tuple[int, int]:
    """The numbers of tokens sent and received, by a reply that was read; 0 where it does not
    tell."""
    usage = response.json().get("usage")
    if not isinstance(usage, dict):
        return 0, 0
    return usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0


def error_text(response: Response) -> str:
    """The status and the server's own words, for a person."""
    try:
        content: Any = response.json()
    except ValueError:
        content = response.text
    for key in ("error", "message", "detail"):  # {"error": {"message": ...}}, {"detail": ...}
        if isinstance(content, dict) and content.get(key):
            content = content[key]
    return f"HTTP {response.status_code}: {_shortened(content)}"


def _shortened(value: object) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split()).rstrip(" .")
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} ..."


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
