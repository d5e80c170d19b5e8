"""Fields of JSON rows: there and usable, or a row that is refused."""

from __future__ import annotations

import json
import re
import reprlib

from seva_exp.core.errors import suggest
from seva_exp.core.records import Drop
from seva_exp.core.spec import Json

_PLACEHOLDER = re.compile(
    r"<\|?/?([\w-]*[_-])?(image|img)([_-][\w-]*|\d+)?\|?>|<\|vision_\w+\|>|\[img(_break|_end)?\]",
    re.IGNORECASE,
)
REMOVE_PLACEHOLDER = "remove it: the picture is placed by the model's template"


class BadRow(ValueError):
    """A row that gives no sample: a reason that can be counted, and what exactly was found.
    ``field`` is the row's key at fault, "" for the row as a whole. All of it can be encoded.
    ``of_image``: the fault is the picture's path or file."""

    def __init__(self, reason: str, detail: str, field: str = "", of_image: bool = False) -> None:
        detail = printable(detail)
        where = f"field '{printable(field)}': " if field else ""
        super().__init__(f"{where}{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.field = field
        self.of_image = of_image

    def drop(self, name: str) -> Drop:
        """The drop that the samples stage keeps of a bad row."""
        detail = f"{self.field}: {self.detail}" if self.field else self.detail
        return Drop(name, self.reason, printable(detail))


def parsed(line: bytes) -> object:
    """The JSON value of one line."""
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadRow("not JSON", str(error)) from error


def object_of(item: object) -> Json:
    """The row as an object."""
    if not isinstance(item, dict):
        raise BadRow("not a JSON object", f"a {type(item).__name__}")
    return item


def value_of(values: Json, field: str) -> object:
    """The row's value of ``field``."""
    if field not in values:
        hint = suggest(field, values).strip().rstrip(".") or "the row is empty"
        raise BadRow("missing", hint, field)
    return values[field]


def text_of(values: Json, field: str) -> str:
    """The text under ``field``: not blank, and without half a character."""
    return as_text(value_of(values, field), field)


def as_text(value: object, field: str) -> str:
    """``value`` if it is a usable text; ``field`` says where it stands in the row."""
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{reprlib.repr(value)}, a text is needed", field)
    if not value.strip():
        raise BadRow("empty", repr(value), field)
    if "\0" in value or value.encode("utf-8", "replace").decode() != value:
        raise BadRow("not text", reprlib.repr(value), field)
    return value


def printable(text: str) -> str:
    """``text`` with that escaped which is no text: bytes of a file name, halves of a surrogate
    pair. It can be encoded as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def spoken(text: str, field: str) -> str:
    """``text`` if no token in it stands for a picture."""
    if token := placeholder_in(text):
        raise BadRow(f"image placeholder {token}", REMOVE_PLACEHOLDER, field)
    return text


def placeholder_in(text: str) -> str | None:
    """The first token in ``text`` that stands for a picture in some model's prompts, such as
    ``<image>``, ``<|image_pad|>``, ``<image_soft_token>``, ``<|vision_start|>`` or ``[IMG]``."""
    found = _PLACEHOLDER.search(text)
    return found[0] if found else None
