"""The server's address: how it is spoken to, and what is looked at before any work starts."""

from __future__ import annotations

from typing import Any

import httpx2

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.machine import Server
from seva_exp.core.redact import HIDDEN
from seva_exp.served.chat import PATH, PassingFault, Refusal, reply_of

JSON = {"Content-Type": "application/json"}
CONNECT_SECONDS, LISTING_SECONDS, CHECK_SECONDS = 10.0, 20.0, 60.0


def client_options(server: Server) -> dict[str, Any]:
    """The arguments of an ``httpx2`` client of this server: address, key, time limit."""
    key = server.api_key()
    return {
        "base_url": f"{(server.url or '').rstrip('/')}/",
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx2.Timeout(
            server.timeout_seconds, connect=min(server.timeout_seconds, CONNECT_SECONDS)
        ),
    }


def without_key(server: Server, text: str) -> str:
    """``text``, which may be the server's, with the API key hidden."""
    key = server.api_key()
    return text.replace(key, HIDDEN) if key else text


def transport_fault(error: httpx2.RequestError) -> str:
    """Why no whole reply came."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


def only_model(server: Server, field: str) -> str:
    """The name of the one model that the server lists. Raises InputError where it lists another
    number of them or cannot be asked; ``field`` is where a person can name one."""
    try:
        names = _listed(server)
    except (httpx2.RequestError, ValueError) as error:
        why = transport_fault(error) if isinstance(error, httpx2.RequestError) else str(error)
        raise InputError(
            f"{server.field}.url={server.url}: its list of models cannot be had "
            f"({without_key(server, why)}). Start the server or correct the address (it mostly "
            f"ends in /v1); or set {field}."
        ) from None
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"{field}: must be set, since the server lists {len(names)} models.{suggest('', names)}"
    )


def check(server: Server, body: bytes, named: str, what: str) -> None:
    """Ask one question (``body``: its JSON). Raises InputError where that is not answered: the
    server is not there, has no such model (``named``: its field and name), or does not answer
    ``what``."""
    try:
        limit = min(server.timeout_seconds, CHECK_SECONDS)
        with httpx2.Client(**client_options(server) | {"timeout": limit}) as client:
            reply_of("check", client.post(PATH, content=body, headers=JSON))
    except httpx2.RequestError as error:
        raise InputError(
            f"{server.field}.url={server.url}: no answer "
            f"({without_key(server, transport_fault(error))}). Start the server, or correct the "
            "address (docs/served_models.md)."
        ) from None
    except (Refusal, PassingFault) as error:
        raise InputError(
            f"{server.field}.url={server.url}, {named}: the server does not answer {what}: "
            f"{without_key(server, str(error))}.{_hint(server)}"
        ) from None


def _hint(server: Server) -> str:
    try:
        names = _listed(server)
    except (httpx2.RequestError, ValueError):
        return f" Does the address end in /v1? Is {server.field}.api_key_env needed?"
    return f" Models that it lists: {', '.join(names) or 'none'}."


def _listed(server: Server) -> list[str]:
    """Names of the server's models. Raises ValueError for a reply that is no list of them."""
    options = client_options(server) | {"timeout": LISTING_SECONDS}
    with httpx2.Client(**options) as client:
        response = client.get("models")
    if not response.is_success:
        raise ValueError(f"HTTP {response.status_code}")
    try:
        return sorted(str(model["id"]) for model in response.json()["data"])
    except (LookupError, TypeError):
        raise ValueError("the reply is no list of models") from None
