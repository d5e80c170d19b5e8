"""Idefics3 and its line: SmolVLM, SmolVLM2."""

from __future__ import annotations

from typing import Any

from seva_exp.models.families.base import Family


class Idefics(Family):
    """Tiles, and behind them the whole picture; turns end in a token of their own."""

    whole = -1

    def end_token(self, processor: Any) -> str:
        return processor.end_of_utterance_token
