"""Fields of JSON rows: there and usable, or a row that is refused."""

from __future__ import annotations

import json
import re
import reprlib

from seva_exp.core.errors import suggest
from seva_exp.core.printable import ends, one_line
from seva_exp.core.records import Drop
from seva_exp.core.spec import Json

_PLACEHOLDER = re.compile(
    r"<\|?/?([\w-]*[_-])?(image|img)([_-][\w-]*|\d+)?\|?>|<\|vision_\w+\|>|\[img(_break|_end)?\]",
    re.IGNORECASE,
)
REMOVE_PLACEHOLDER = "remove it: the picture is placed by the model's template"


LONGEST_DETAIL = 400
"""Characters of what was found in a row that a message shows."""


class BadRow(ValueError):
    """A row that gives no sample: a reason that can be counted, and what exactly was found.
    ``field`` is the row's key at fault, "" for the row as a whole. All of it can be encoded.
    ``of_image``: the fault is the picture's path or file. ``left_out``: the row is one of another
    kind, which ends no run."""

    def __init__(
        self,
        reason: str,
        detail: str,
        field: str = "",
        of_image: bool = False,
        left_out: bool = False,
    ) -> None:
        detail, field = ends(one_line(detail), LONGEST_DETAIL), ends(one_line(field))
        where = f"field '{field}': " if field else ""
        super().__init__(f"{where}{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.field = field
        self.of_image = of_image
        self.left_out = left_out

    def drop(self, name: str) -> Drop:
        """The drop that the samples stage keeps of a bad row."""
        detail = f"{self.field}: {self.detail}" if self.field else self.detail
        return Drop(name, self.reason, detail)


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


_CONTENT = re.compile(r"data:image/|(iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-9a-zA-Z])[\w+/=\s]{99}")
"""How a picture begins that stands in a text itself, as base64."""


def only(value: object, field: str) -> object:
    """``value``, or what a list of one holds."""
    if not isinstance(value, list):
        return value
    if len(value) == 1:
        return value[0]
    if not value:
        raise BadRow("no picture", "the list is empty", field)
    detail = f"{len(value)} of them, {reprlib.repr(value)}; one is needed"
    raise BadRow("several pictures", detail, field)


def picture_path(value: object, field: str) -> str:
    """The path of a picture: a text, or a list of one."""
    text = as_text(only(value, field), field)
    if _CONTENT.match(text):
        detail = (
            f"{len(text)} characters of base64, {text[:24]!r} ...; the path of a file is needed: "
            "write the pictures to files"
        )
        raise BadRow("not a path", detail, field)
    if text.startswith(("http://", "https://")):
        detail = f"{text!r}; pictures are not fetched: download them and give their paths"
        raise BadRow("an address", detail, field)
    return text


def encodable(text: str) -> str:
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


def unspoken(text: str) -> str:
    """``text`` with blanks for the signs that make a word in it stand for a picture."""
    return _PLACEHOLDER.sub(lambda found: found[0].strip("<>|/[]"), text)
