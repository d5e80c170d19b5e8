"""Conversations about a picture: LLaVA's format (``conversations`` of human and gpt) and the one
of chat models (``messages`` of user and assistant)."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass

from seva_exp.core.spec import Json
from seva_exp.inputs.fields import BadRow, as_text, object_of, spoken, value_of

TURNS, MESSAGES = "conversations", "messages"
TOKEN = "<image>"
"""Where the picture stands in a turn; it is removed, since the model's template places it."""
HUMAN, GPT = ("human", "user"), ("gpt", "assistant")
"""Names of who asks and who answers."""


@dataclass(frozen=True)
class Turns:
    """The turns of one row, such as ``{"from": "human", "value": ...}`` or ``{"role": "user",
    "content": ...}``, which may come mixed; ``field`` is the row's key of them."""

    field: str
    items: list[object]

    def speaker(self, place: int) -> str:
        """Who speaks in a turn, in the row's own word."""
        turn = self._turn(place)
        key = "role" if "role" in turn else "from"
        return as_text(turn.get(key), f"{self.field}[{place}].{key}")

    def utterance(self, place: int, who: tuple[str, ...]) -> str:
        """The text of ``who`` in a turn, without the image token and outer spaces."""
        name = who[self.field == MESSAGES]
        if place >= len(self.items):
            detail = f"there are {len(self.items)}, {name} is needed here"
            raise BadRow("no such turn", detail, f"{self.field}[{place}]")
        turn = self._turn(place)
        in_chat = "role" in turn
        if (found := self.speaker(place)) not in who:
            key = "role" if in_chat else "from"
            hint = "; its text belongs into model.system_prompt" if found == "system" else ""
            detail = f"{found!r}, {name!r} is needed{hint}"
            raise BadRow("wrong speaker", detail, f"{self.field}[{place}].{key}")
        field = f"{self.field}[{place}].{'content' if in_chat else 'value'}"
        key = "content" if in_chat else "value"
        if key not in turn:
            raise BadRow("missing", f"the turn has {', '.join(map(str, turn))}", field)
        value = turn[key]
        text = as_text(_joined(value, field) if isinstance(value, list) else value, field)
        plain = text.replace(TOKEN, "", 1).strip() if who == HUMAN else text.strip()
        return spoken(as_text(plain, field), field)

    def first_question(self) -> str:
        """The first question."""
        return self.utterance(0, HUMAN)

    def first_answer(self) -> str:
        """The answer to the first question."""
        return self.utterance(1, GPT)

    def questions(self) -> list[str]:
        """All of them, whatever stands between."""
        places = [i for i in range(len(self.items)) if self.speaker(i) in HUMAN]
        if not places:
            raise BadRow("no question", f"no turn is the {HUMAN[0]}'s", self.field)
        return [self.utterance(place, HUMAN) for place in places]

    def shows_picture(self) -> bool:
        """Whether a turn has the image token."""
        return any(TOKEN in str(turn) for turn in self.items)

    def _turn(self, place: int) -> Json:
        turn = self.items[place]
        if not isinstance(turn, dict):
            detail = f"a {type(turn).__name__}, an object is needed"
            raise BadRow("wrong type", detail, f"{self.field}[{place}]")
        return turn


def turns_of(values: Json) -> Turns:
    """The row's turns."""
    field = MESSAGES if MESSAGES in values and TURNS not in values else TURNS
    return turns_under(value_of(values, field), field)


def turns_under(value: object, field: str) -> Turns:
    """``value``, which stands under ``field``, as turns."""
    if not isinstance(value, list):
        raise BadRow("wrong type", f"a {type(value).__name__}, a list is needed", field)
    if not value:
        raise BadRow("empty", "there is no turn", field)
    return Turns(field, value)


def text_in(values: Json, field: str, pick: Callable[[Turns], str]) -> str:
    """The text of a column, or what ``pick`` takes of its turns."""
    value = value_of(values, field)
    if isinstance(value, list):
        return pick(turns_under(value, field))
    return spoken(as_text(value, field), field)


def _joined(parts: list[object], field: str) -> str:
    """The text of a turn in parts, of which one at most is the picture."""
    texts, pictures = [], 0
    for place, part in enumerate(parts):
        values = object_of(part)
        if values.get("type") == "text":
            texts.append(as_text(values.get("text"), f"{field}[{place}].text"))
        elif values.get("type") in ("image", "image_url"):
            pictures += 1
        else:
            detail = f"{reprlib.repr(values.get('type'))}, 'text' or 'image' is needed"
            raise BadRow("wrong type", detail, f"{field}[{place}].type")
    if pictures > 1:
        raise BadRow("several pictures", f"{pictures} parts of this turn; one is needed", field)
    return "\n".join(texts)
