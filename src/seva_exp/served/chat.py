"""The wire format of OpenAI-compatible servers: what they reply, and what that means."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf
from time import time
from typing import TYPE_CHECKING, Any

from seva_exp.core.interfaces import Reply
from seva_exp.core.printable import flat
from seva_exp.core.texts import whole_characters

if TYPE_CHECKING:
    from httpx2 import Response

PATH = "chat/completions"
STOPS = {"stop": "eos", "length": "length"}
"""finish_reason -> a reply's ``stop``."""
PASSING = {408, 409, 429}
"""Statuses below 500 that may be another one at the next try."""
LONGEST_MESSAGE = 300
LARGEST_COUNT = 1 << 31
"""Of tokens; a server that tells more tells none."""
KEPT = ("retry-after", "location")
"""Headers of a reply that are looked at."""
_TOO_LONG = re.compile(
    r"(maximum|model's) context length|context[ _](length|size|window)[\w ]*exceeded|"
    r"exceed\w*( the available| the)?[ _]context[ _](length|size|window)|"
    r"max_tokens must be at least 1, got (-|0)|`max_new_tokens` must be <=",
    re.IGNORECASE,
)
"""How vLLM, SGLang, llama.cpp, TGI and OpenAI say that a question is too long (their public issue
threads: vllm#20409, llama.cpp#15780 ...): no status and no code is common to them."""


class Refusal(Exception):
    """The server will not answer this question, however often it is asked."""


class TooLong(Refusal):
    """Question and answer do not fit the context that the server gives its model."""


class PassingFault(Exception):
    """Asked again, the server may answer; ``wait``: not before so many seconds, if it said so.
    ``down``: it may be the server that is at fault, and not only busy."""

    def __init__(self, why: str, wait: float | None = None, *, down: bool = False) -> None:
        super().__init__(why)
        self.wait = wait
        self.down = down


def reply_of(id: str, response: Response) -> Reply:
    """The server's reply; half a surrogate pair, which is no text, as U+FFFD. Raises Refusal or
    PassingFault where that is no answer."""
    status = response.status_code
    if not response.is_success and _TOO_LONG.search(response.text):
        raise TooLong(error_text(response))
    if status in PASSING or status >= 500:
        raise PassingFault(error_text(response), _retry_after(response), down=status >= 500)
    if not response.is_success:
        raise Refusal(error_text(response))
    try:
        choice = json_of(response)["choices"][0]
        text, reason = _text(choice["message"]["content"]), str(choice["finish_reason"])
    except (ValueError, LookupError, TypeError):
        raise PassingFault(f"no chat completion came, but {server_words(response.text)}") from None
    if reason not in STOPS:
        raise Refusal(f"it ended the answer with finish_reason={flat(reason)}")
    return Reply(id, whole_characters(text).strip(), (), STOPS[reason])


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
    usage = json_of(response).get("usage")
    return _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")


def _count(usage: Any, name: str) -> int:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and 0 <= found < LARGEST_COUNT else 0


def json_of(response: Response) -> Any:
    """The reply as JSON. Raises ValueError where it is none."""
    try:
        return response.json()
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def error_text(response: Response) -> str:
    """The status and the server's own words, for a person."""
    if response.has_redirect_location:
        place = server_words(response.headers["location"])
        return f"HTTP {response.status_code}: it redirects to {place}, which is not followed"
    try:
        content: Any = json_of(response)
    except ValueError:
        content = response.text
    for key in ("error", "message", "detail"):  # {"error": {"message": ...}}, {"detail": ...}
        if isinstance(content, dict) and content.get(key):
            content = content[key]
    return f"HTTP {response.status_code}: {server_words(content)}"


def server_words(value: object) -> str:
    """A server's words on one line, cut; they can be printed."""
    try:
        whole = value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        whole = "JSON that is nested too deep"
    return flat(whole, LONGEST_MESSAGE)


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
