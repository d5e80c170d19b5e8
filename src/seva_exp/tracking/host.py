"""Whether a tracker's host answers, before anything is sent that would wait for it."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 1.0
"""How long to wait for a host before a run is tracked offline, or not at all."""
PORTS = {"https": 443, "http": 80, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Ports where an address states none."""


def answers(url: SplitResult) -> bool:
    """Whether the host (or the proxy on the way to it) takes a TCP connection soon.

    In a thread, as looking a name up has no time limit of its own."""
    proxy = getproxies().get(url.scheme)
    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: an odd name or proxy
            to = url
            if proxy and not proxy_bypass(url.hostname or ""):
                to = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            port = to.port or PORTS.get(to.scheme.partition("+")[0], 80)
            with socket.create_connection((to.hostname or "", port), timeout=CONNECT_SECONDS):
                answered.set()

    threading.Thread(target=connect, daemon=True).start()
    return answered.wait(CONNECT_SECONDS + 0.2)
