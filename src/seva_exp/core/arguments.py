"""Commands' arguments: the parser that every command's is, and what ``--version`` answers."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from seva_exp import __version__

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "hydra-core", "pydantic", "wandb")
"""Libraries whose version ``--version`` tells."""


def version_text() -> str:
    """Of this package, and of the libraries that decide results and messages."""
    lines = [f"seva_exp {__version__}", f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} absent")
    return "\n".join(lines)


class _Version(argparse.Action):
    """Tell the versions and end with 0, whatever else is missing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(version_text())
        parser.exit()


def command_parser(name: str, about: str | None, laid_out: bool = False) -> argparse.ArgumentParser:
    """That of ``python -m seva_exp.NAME``, with ``--help`` and ``--version``. Lines of ``about``
    that is ``laid_out`` stay as they are."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        f"python -m seva_exp.{name}",
        description=about,
        formatter_class=raw if laid_out else argparse.HelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="tell the versions, and end")
    return parser
