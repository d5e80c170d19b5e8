"""LLaVA's conversation format: rows with an image and turns of a human and of gpt."""

from __future__ import annotations

from seva_exp.core.spec import Json
from seva_exp.inputs.fields import BadRow, as_text, object_of, spoken, value_of

TURNS = "conversations"
TOKEN = "<image>"
"""Where the picture stands in a turn; it is removed, since the model's template places it."""


def turns_of(values: Json) -> list[object]:
    """The row's turns, such as ``[{"from": "human", "value": ...}, {"from": "gpt", ...}]``."""
    turns = value_of(values, TURNS)
    if not isinstance(turns, list):
        raise BadRow("wrong type", f"a {type(turns).__name__}, a list is needed", TURNS)
    if not turns:
        raise BadRow("empty", "there is no turn", TURNS)
    return turns


def speaker(turns: list[object], place: int) -> str:
    """The speaker of a turn."""
    field = f"{TURNS}[{place}]"
    turn = turns[place]
    if not isinstance(turn, dict):
        raise BadRow("wrong type", f"a {type(turn).__name__}, an object is needed", field)
    return as_text(turn.get("from"), f"{field}.from")


def utterance(turns: list[object], place: int, who: str) -> str:
    """The text of ``who`` in a turn, without the image token and outer spaces."""
    field = f"{TURNS}[{place}]"
    if place >= len(turns):
        raise BadRow("no such turn", f"there are {len(turns)}, {who} is needed here", field)
    if (found := speaker(turns, place)) != who:
        raise BadRow("wrong speaker", f"{found!r}, {who!r} is needed", f"{field}.from")
    text = as_text(object_of(turns[place]).get("value"), f"{field}.value")
    plain = text.replace(TOKEN, "", 1).strip() if who == "human" else text.strip()
    return spoken(as_text(plain, f"{field}.value"), f"{field}.value")
