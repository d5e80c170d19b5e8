"""The wire format of OpenAI-compatible servers: what they reply, and what that means."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any

from seva_exp.interfaces import Reply

if TYPE_CHECKING:
    from httpx2 import Response

PATH = "chat/completions"
STOPS = {"stop": "eos", "length": "length"}
"""finish_reason -> a reply's ``stop``."""
PASSING = {408, 409, 429}
"""Statuses below 500 that may be another one at the next try."""
LONGEST_SAID = 300


class Refusal(Exception):
    """The server will not answer this question, however often it is asked."""


class PassingFault(Exception):
    """Asked again, the server may answer; ``wait``: not before so many seconds, if it said so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


def reply_of(id: str, response: Response) -> Reply:
    """What the server said. Raises Refusal or PassingFault where that is no answer."""
    status = response.status_code
    if status in PASSING or status >= 500:
        raise PassingFault(said(response), _retry_after(response))
    if not response.is_success:
        raise Refusal(said(response))
    try:
        choice = response.json()["choices"][0]
        text, reason = choice["message"]["content"] or "", choice["finish_reason"]
    except (ValueError, LookupError, TypeError):
        raise PassingFault(f"no chat completion came, but {_shortened(response.text)}") from None
    if reason not in STOPS:
        raise Refusal(f"it ended the answer with finish_reason={reason}")
    return Reply(id, text.strip(), (), STOPS[reason])


def tokens_of(response: Response) -> tuple[int, int]:
    """How many tokens were sent and came back, by a reply that was read; 0 where it does not
    tell."""
    usage = response.json().get("usage")
    if not isinstance(usage, dict):
        return 0, 0
    return usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0


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
    """Seconds: the header holds them, or a date."""
    value = response.headers.get("retry-after", "")
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None
