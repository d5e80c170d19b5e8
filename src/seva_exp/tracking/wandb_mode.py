"""Whether a run is sent to W&B at once: the variables, a key, and whether the host answers."""

from __future__ import annotations

import contextlib
import netrc
import os
import socket
import threading
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from seva_exp.tracking.spec import WandbTracker

Mode = Literal["online", "offline", "disabled"]
CONNECT_SECONDS = 1.0
"""How long to wait for the W&B host before a run is tracked offline."""


def choose_mode(tracker: WandbTracker) -> tuple[Mode, str]:
    """``online``, ``offline`` or ``disabled``, and why. Never asks; never shows a key."""
    if tracker.mode == "offline":
        return "offline", "tracker.mode=offline"
    mode = os.environ.get("WANDB_MODE", "").lower() if tracker.mode == "auto" else "online"
    if mode in ("offline", "dryrun"):
        return "offline", f"WANDB_MODE={mode}"
    if mode == "disabled":
        return "disabled", "WANDB_MODE=disabled"
    if mode not in ("", "online", "run"):
        return "offline", f"WANDB_MODE={mode} is none of online, offline, disabled"
    url = wandb_host()
    if url is None:
        return "offline", "WANDB_BASE_URL is no address like https://host:port"
    if not _has_key(url.netloc):
        return "offline", "no API key found"
    if mode in ("online", "run"):
        return "online", f"{'tracker.mode' if tracker.mode == 'online' else 'WANDB_MODE'}={mode}"
    if not _answers(url):
        return "offline", f"{url.netloc.rpartition('@')[2]} does not answer"
    return "online", "API key found"


def wandb_host() -> SplitResult | None:
    """Where W&B is; None when the address cannot be one."""
    try:
        url = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of ``urlsplit`` and of ``port``
        return None
    return url if usable else None


def _has_key(netloc: str) -> bool:
    """Whether wandb will find credentials without asking: environment, identity token, netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    places = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for place in places:
        try:
            found = netrc.netrc(os.path.expanduser(place)).authenticators(netloc)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
        if found and found[2]:
            return True
    return False


def _answers(url: SplitResult) -> bool:
    """Whether the host (or the proxy on the way to it) takes a TCP connection soon.

    In a thread, as looking a name up has no time limit of its own."""
    proxy = getproxies().get(url.scheme)
    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: an odd name or proxy
            to = url
            if proxy and not proxy_bypass(url.hostname or ""):
                to = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            place = (to.hostname or "", to.port or (443 if to.scheme == "https" else 80))
            with socket.create_connection(place, timeout=CONNECT_SECONDS):
                answered.set()

    threading.Thread(target=connect, daemon=True).start()
    return answered.wait(CONNECT_SECONDS + 0.2)
