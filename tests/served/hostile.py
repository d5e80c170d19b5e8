"""What a hostile server may do to a question: faults for ``Misbehaving``."""

from __future__ import annotations

import json
import time
import zlib
from contextlib import suppress
from functools import cache

from .serving import Fault, completion, dropped, reply

MEGABYTE = b"x" * (1 << 20)


def endless(handler):
    """A reply that never stops, as fast as it is read; ``handler.server.sent`` counts bytes."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        for _ in range(2000):
            handler.wfile.write(MEGABYTE)
            handler.server.sent += len(MEGABYTE)
    return dropped(handler)


def dripping_headers(handler):
    """The head of a reply comes byte by byte and has no end."""
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(75):
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(0.2)
    return dropped(handler)


def many_headers(handler):
    handler.send_response(200)
    for number in range(5000):
        handler.send_header(f"X-{number}", "a" * 200)
    with suppress(OSError):
        handler.end_headers()
    return dropped(handler)


@cache
def compressed() -> bytes:
    """A completion of 100 MB, 100 KB on the wire."""
    head, tail = json.dumps(completion("TEXT")).encode().split(b"TEXT")
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(part) for part in (head, *[MEGABYTE] * 100, tail)]
    return b"".join(parts) + packer.flush()


def bomb(handler):
    """A small reply that becomes a large one."""
    handler.send(200, compressed(), Content_Encoding="gzip")
    return True


def silent(handler):
    """Nothing comes for 15 seconds."""
    time.sleep(15)
    return dropped(handler)


def to(place: str, status: int = 307) -> Fault:
    """A redirect."""

    def fault(handler):
        handler.send(status, b"", Location=place)
        return True

    return fault


HTML = reply(b"<html><script>alert(1)</script>")
DEEP = reply(b"[" * 200_000 + b"]" * 200_000)
LONG = reply(completion("green " * 1_700_000))
ODD_COUNTS = reply(
    completion("green") | {"usage": {"prompt_tokens": "<b>", "completion_tokens": [1]}}
)
