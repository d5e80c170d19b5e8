"""Whether a run is sent to W&B at once: the variables, a key, and whether the host answers."""

from __future__ import annotations

import netrc
import os
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from seva_exp.tracking.host import answers
from seva_exp.tracking.spec import WandbTracker

Mode = Literal["online", "offline", "disabled"]
_YES = ("1", "true", "yes", "on")


def choose_mode(tracker: WandbTracker) -> tuple[Mode, str]:
    """``online``, ``offline`` or ``disabled``, and why. Never asks; never shows a key."""
    if tracker.mode == "offline":
        return "offline", "tracker.mode=offline"
    mode = os.environ.get("WANDB_MODE", "").lower() if tracker.mode == "auto" else "online"
    if tracker.mode == "auto" and os.environ.get("WANDB_DISABLED", "").lower() in _YES:
        return "disabled", "WANDB_DISABLED"
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
    if not answers(url):
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
