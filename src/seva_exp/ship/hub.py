"""A finished folder to the Hugging Face hub: only when it was asked for, and a person said yes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from seva_exp.core.errors import InputError, StageError
from seva_exp.core.printable import error_text
from seva_exp.core.redact import hide

NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def check_push(name: str, yes: bool) -> None:
    """Before any work: a name of the hub, somebody to ask, and a login. Raises InputError."""
    if not NAME.fullmatch(name):
        raise InputError(f"--push={name}: a hub id is needed: organisation/name.")
    if not yes and not sys.stdin.isatty():
        raise InputError(
            f"--push={name}: nobody is here to say yes to an upload. Add --yes, or call it on a "
            "terminal."
        )
    who_am_i(name)


def who_am_i(name: str) -> str:
    """The hub's name of who is logged in. Raises InputError."""
    import huggingface_hub

    try:
        return str(huggingface_hub.HfApi().whoami()["name"])
    except Exception as error:  # of the network, or of no login
        why = hide(error_text(error, first_line=True))
        raise InputError(
            f"--push={name}: the hub does not know who you are ({why}). Log in first: `hf auth "
            "login`, or the variable HF_TOKEN. Nothing was made."
        ) from None


def agreed(name: str, public: bool, megabytes: float) -> bool:
    """Ask the person at the terminal."""
    seen = "everybody can read it" if public else "private"
    question = f"Upload {megabytes:,.1f} MB to https://huggingface.co/{name} ({seen})? [y/N] "
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def push(folder: Path, name: str, public: bool) -> str:
    """Upload all of the folder, into a new repository where there is none; its address. Raises
    StageError: the folder stays, so that nothing but the upload need be done again."""
    import huggingface_hub

    try:
        api = huggingface_hub.HfApi()
        address = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=str(folder), commit_message="Upload of seva_exp.ship"
        )
        return str(address)
    except Exception as error:  # of the network, of rights, of the hub's quota
        why = hide(error_text(error, first_line=True))
        raise StageError(
            f"--push={name}: not uploaded ({why}). The folder is whole; upload it again with "
            f"`hf upload {name} {folder}`."
        ) from None
