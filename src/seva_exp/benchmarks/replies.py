"""What judges said, kept in the store by what was asked: the same question is never paid for
twice, in whichever benchmark or run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from seva_exp.benchmarks.judging import Query
from seva_exp.core.disk import warn_of_damage
from seva_exp.core.files import write_whole
from seva_exp.core.machine import JudgeServer
from seva_exp.core.spec import canonical
from seva_exp.served.chat import Refusal, TooLong, reply_of, tokens_of

if TYPE_CHECKING:
    from httpx2 import Response

FOLDER = "replies"
OF_THE_QUESTION = {200, 400, 413, 422}
"""Statuses of a refusal that are this question's (too long, filtered), not the server's: the others
are still asked."""


@dataclass(frozen=True)
class JudgeReply:
    """A judge's reply; ``refused`` where there is none."""

    query: Query
    text: str
    refused: bool = False
    prompt_tokens: int = 0
    reply_tokens: int = 0


class Replies:
    """One small file each, below the store: ``replies/<2 characters>/<key>.json``."""

    def __init__(self, store: Path) -> None:
        self._root = store / FOLDER

    def find(self, query: Query) -> str | None:
        """The judge's earlier reply to the same question."""
        file = self._file(query)
        if not file.exists():
            return None
        text = _text(file)
        if text is None:
            warn_of_damage(f"{file}: is damaged; the judge is asked again")
        return text

    def keep(self, reply: JudgeReply) -> None:
        """Keep a reply that could be read."""
        file = self._file(reply.query)
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = sha256(reply.text.encode()).hexdigest()
        text = canonical({**reply.query.to_json(), "text": reply.text, "sha256": digest})
        write_whole(file, text, shared=True)  # runs side by side may ask the same

    def _file(self, query: Query) -> Path:
        return self._root / query.key[:2] / f"{query.key}.json"


def damaged_replies(store: Path) -> Iterator[str]:
    """Kept replies that cannot be used, a line each."""
    for file in sorted((store / FOLDER).glob("*/*.json")):
        if _text(file) is None:
            yield f"{file}: is damaged; the judge is asked again"


def _text(file: Path) -> str | None:
    """The reply that a file keeps; None for one that is damaged."""
    try:
        row = json.loads(file.read_bytes())
        text: str = row["text"]
        whole = row.get("sha256") in (None, sha256(text.encode()).hexdigest())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return text if whole else None


def ask_all(
    server: JudgeServer,
    queries: Sequence[Query],
    name: Callable[[Query], str],
    warn: Callable[[str], None],
) -> Iterator[list[JudgeReply]]:
    """Every question's reply, some at a time as they come. Raises StageError where the server fails
    for good."""
    from seva_exp.served.asking import ChatClient

    return ChatClient(server, Query.body, _judge_reply, name, warn).run(queries)


def _judge_reply(query: Query, response: Response) -> JudgeReply:
    try:
        reply = reply_of(query.key, response)
    except Refusal as refusal:
        if isinstance(refusal, TooLong) or response.status_code in OF_THE_QUESTION:
            return JudgeReply(query, str(refusal), refused=True)
        raise
    return JudgeReply(query, reply.text, False, *tokens_of(response))
