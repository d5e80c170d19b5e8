"""A run's folder: what happens is told and written down, and read again."""

from importlib import import_module
from typing import Any

__all__ = ["frame"]


def __getattr__(name: str) -> Any:
    """``frame`` when it is first used: reading runs as a table loads what a list of them does not
    need."""
    if name != "frame":
        raise AttributeError(f"module 'seva_exp.runs' has no attribute '{name}'")
    return import_module("seva_exp.runs.table").frame
