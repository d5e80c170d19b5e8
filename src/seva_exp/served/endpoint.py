"""The server's address: how it is spoken to, and what is looked at before any work starts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import httpx2

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.machine import Server
from seva_exp.core.redact import HIDDEN
from seva_exp.served.chat import (
    KEPT,
    PATH,
    PassingFault,
    Refusal,
    error_text,
    json_of,
    reply_of,
    server_words,
)

CONNECT_SECONDS, LISTING_SECONDS, CHECK_SECONDS = 10.0, 20.0, 60.0
LARGEST_REPLY = 1 << 22
"""Bytes of a reply that are read: an answer of 100,000 tokens takes a tenth of it."""
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
"""A compressed reply could be a thousand times what comes over the wire."""
LARGEST_PORT = 65535
Got = TypeVar("Got")


def client_options(server: Server) -> dict[str, Any]:
    """The arguments of an ``httpx2`` client of this server: address, key, time limit."""
    key = server.api_key()
    return {
        "base_url": _address(server),
        "headers": HEADERS | ({"Authorization": f"Bearer {key}"} if key else {}),
        "timeout": httpx2.Timeout(
            server.timeout_seconds, connect=min(server.timeout_seconds, CONNECT_SECONDS)
        ),
    }


def _address(server: Server) -> str:
    address = f"{str(server.url or '').rstrip('/')}/"
    try:
        port = httpx2.URL(address).port or 0
    except httpx2.InvalidURL as error:
        raise InputError(f"{server.field}.url={server.url}: no address: {error}.") from None
    if port > LARGEST_PORT:
        raise InputError(f"{server.field}.url={server.url}: ports end at {LARGEST_PORT}.")
    return address


async def send(
    client: httpx2.AsyncClient, seconds: float, path: str, body: bytes | None = None
) -> httpx2.Response:
    """The whole reply to a POST of ``body`` (none: a GET), within ``seconds`` in all and
    ``LARGEST_REPLY``. Raises PassingFault where there is none. A redirect is not followed."""
    method = "GET" if body is None else "POST"
    try:
        async with asyncio.timeout(seconds), client.stream(method, path, content=body) as reply:
            content = await _bounded(reply)
    except TimeoutError:
        raise PassingFault(f"no reply within {seconds:g} s", down=True) from None
    except httpx2.RequestError as error:
        raise PassingFault(transport_fault(error), down=True) from None
    kept = {name: reply.headers[name] for name in KEPT if name in reply.headers}
    return httpx2.Response(reply.status_code, headers=kept, content=content)


async def _bounded(reply: httpx2.Response) -> bytes:
    coding = reply.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise PassingFault(f"a reply compressed by {server_words(coding)}, which was not asked for")
    parts, size = [], 0
    async for part in reply.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > LARGEST_REPLY:
            raise PassingFault(f"a reply of more than {LARGEST_REPLY >> 20} MB, which no answer is")
    return b"".join(parts)


async def _sent(
    server: Server, seconds: float, path: str, body: bytes | None = None
) -> httpx2.Response:
    async with httpx2.AsyncClient(**client_options(server)) as client:
        return await send(client, seconds, path, body)


def _waited_for(work: Coroutine[Any, Any, Got]) -> Got:
    """What a coroutine gives, where another event loop may run already (a notebook's)."""
    done: Future[Got] = Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(work))
        except BaseException as error:  # is raised again below
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result()


def without_key(server: Server, text: str) -> str:
    """``text``, which may be the server's, with the API key hidden."""
    key = server.api_key()
    return text.replace(key, HIDDEN) if key else text


def transport_fault(error: httpx2.RequestError) -> str:
    """Why no whole reply came."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


def only_model(server: Server, field: str) -> str:
    """The name of the one model that the server lists: of several endpoints the first that answers.
    Raises InputError where it lists another number of them or cannot be asked; ``field`` is where a
    person can name one."""
    names: list[str] | None = None
    faults: list[str] = []
    for one in server.endpoints:
        try:
            names = _listed(one)
            break
        except (PassingFault, ValueError) as error:
            faults.append(
                f"{one.field}.url={one.url}: its list of models cannot be had "
                f"({without_key(one, str(error))}). Start the server or correct the address (it "
                f"mostly ends in /v1); or set {field}."
            )
    if names is None:
        raise InputError("\n".join(faults))
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"{field}: must be set, since the server lists {len(names)} models.{suggest('', names)}"
    )


def check(server: Server, body: bytes, named: str, what: str) -> None:
    """Ask one question (``body``: its JSON) of each endpoint. Raises InputError where that is not
    answered: none is there, or one has no such model (``named``: its field and name) or does not
    answer ``what``."""
    dead = [fault for one in server.endpoints if (fault := _fault(one, body, named, what))]
    if len(dead) == len(server.endpoints):
        raise InputError("\n".join(dead))


def _fault(server: Server, body: bytes, named: str, what: str) -> str:
    """Why there is no answer; empty where there is one. Raises InputError for a wrong one."""
    limit = min(server.timeout_seconds, CHECK_SECONDS)
    try:
        response = _waited_for(_sent(server, limit, PATH, body))
    except PassingFault as error:
        return (
            f"{server.field}.url={server.url}: no answer ({without_key(server, str(error))}). "
            "Start the server, or correct the address (docs/served_models.md)."
        )
    try:
        reply_of("check", response)
    except (Refusal, PassingFault) as error:
        raise InputError(
            f"{server.field}.url={server.url}, {named}: the server does not answer {what}: "
            f"{without_key(server, str(error))}.{_hint(server)}"
        ) from None
    return ""


def _hint(server: Server) -> str:
    try:
        names = _listed(server)
    except (PassingFault, ValueError):
        return f" Does the address end in /v1? Is {server.field}.api_key_env needed?"
    return f" Models that it lists: {', '.join(names) or 'none'}."


def _listed(server: Server) -> list[str]:
    """Names of the server's models. Raises ValueError for a reply that is no list of them."""
    limit = min(server.timeout_seconds, LISTING_SECONDS)
    response = _waited_for(_sent(server, limit, "models"))
    if not response.is_success:
        raise ValueError(error_text(response))
    try:
        return sorted(str(model["id"]) for model in json_of(response)["data"])
    except (LookupError, TypeError, ValueError):
        raise ValueError("the reply is no list of models") from None
