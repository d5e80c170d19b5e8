"""Rows of preference sets, as trainers of others read and write them: a question, the chosen answer
and the rejected ones.

The formats, by what their trainers document: TRL's conversational and plain columns,
LLaMA-Factory's ``sharegpt`` and ``alpaca`` with ``ranking: true``, ms-swift's ``messages`` with
``rejected_response`` or ``rejected_messages``, the RLAIF-V data set's columns, and this package's
own ``pairs.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seva_exp.core.errors import InputError
from seva_exp.core.spec import Json
from seva_exp.data.conversation import TOKEN, Turns, turns_under
from seva_exp.inputs.fields import BadRow, as_text, only, spoken, text_of, value_of

Format = Literal["auto", "trl", "llamafactory", "ms_swift", "rlaif_v", "seva_exp"]
INFO = "dataset_info.json"
"""LLaMA-Factory's list of data sets, which lies beside their files."""
COLUMNS = {
    *("images", "image", "prompt", "chosen", "rejected", "conversations", "messages"),
    *("instruction", "input", "question", "rejected_response", "rejected_messages"),
    *("rejected_images", "system", "context", "sample_id", "views"),
}
"""Names that a format knows; of a Parquet file no others are read."""


@dataclass(frozen=True)
class Preference:
    """One row: ``rejected`` has at least one answer."""

    prompt: str
    chosen: str
    rejected: tuple[str, ...]


@dataclass(frozen=True)
class Naming:
    """How a LLaMA-Factory file calls its columns and tags, where that differs: what
    ``dataset_info.json`` says of it."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """LLaMA-Factory's name -> the file's."""
    tags: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, values: Json) -> Json:
        """The row with LLaMA-Factory's own names."""
        known = {theirs: own for own, theirs in self.columns.items()}
        return {known.get(name, name): value for name, value in values.items()}

    def turn(self, value: object, name: str) -> object:
        """A turn with the keys that are known here."""
        if not isinstance(value, dict):
            return value
        role, content = (self.tags.get(f"{what}_tag", "") for what in ("role", "content"))
        if role not in value or content not in value:
            return value
        said = str(value[role])
        asks = said == self.tags.get("user_tag", "human")
        answers = said == self.tags.get("assistant_tag", "gpt")
        who = "user" if asks else "assistant" if answers else said
        return {"role": who, "content": value[content]}


def format_of(values: Json) -> str:
    """Which format a row is of, by its keys. Raises BadRow."""
    if "rejected_response" in values or "rejected_messages" in values:
        return "ms_swift"
    if "rejected" not in values or "chosen" not in values:
        hint = f"its keys are {', '.join(map(str, values)) or 'none'}"
        raise BadRow("no preference", f"{hint}; chosen and rejected are needed")
    if "sample_id" in values and "views" in values:
        return "seva_exp"
    if {"conversations", "messages", "instruction"} & values.keys():
        return "llamafactory"
    if "prompt" in values or isinstance(values["chosen"], list):
        return "trl"
    return "rlaif_v"


def preference_of(values: Json, format: str, naming: Naming | None = None) -> Preference:
    """The row as a preference. Raises BadRow, which names the row's key at fault."""
    kind = format_of(values) if format == "auto" else format
    if kind == "llamafactory":
        return _llamafactory(values, naming or Naming())
    return READERS[kind](values)


def _trl(values: Json) -> Preference:
    chosen, rejected = value_of(values, "chosen"), value_of(values, "rejected")
    if "prompt" not in values:
        raise BadRow("missing", "the question is in it, apart from the answers", "prompt")
    prompt = values["prompt"]
    question = (
        _asked(turns_under(prompt, "prompt"))
        if isinstance(prompt, list)
        else _question(prompt, "prompt")
    )
    return Preference(question, _reply(chosen, "chosen"), (_reply(rejected, "rejected"),))


def _llamafactory(values: Json, naming: Naming) -> Preference:
    row = naming.renamed(values)
    if row.get("system"):
        raise BadRow("a system prompt", "its text belongs into model.system_prompt", "system")
    chosen = naming.turn(value_of(row, "chosen"), "chosen")
    rejected = naming.turn(value_of(row, "rejected"), "rejected")
    answers = _reply(chosen, "chosen"), (_reply(rejected, "rejected"),)
    if "instruction" in row or "prompt" in row:  # alpaca
        name = "instruction" if "instruction" in row else "prompt"
        more = row.get("input", row.get("query")) or ""
        text = "\n".join(filter(None, (str(row[name]), str(more))))
        return Preference(_question(text, name), *answers)
    name = "messages" if "messages" in row else "conversations"
    items = value_of(row, name)
    turns = [naming.turn(one, name) for one in items] if isinstance(items, list) else items
    return Preference(_asked(turns_under(turns, name)), *answers)


def _ms_swift(values: Json) -> Preference:
    turns = turns_under(value_of(values, "messages"), "messages")
    if (theirs := values.get("rejected_images")) and theirs != values.get("images"):
        detail = "the rejected answer was given to another picture than the chosen one"
        raise BadRow("several pictures", f"{detail}; leave the field out", "rejected_images")
    if len(turns.items) != 2:
        raise BadRow("several turns", f"{len(turns.items)}, question and answer are 2", "messages")
    if "rejected_messages" in values:
        others = turns_under(values["rejected_messages"], "rejected_messages")
        rejected: tuple[str, ...] = (_said(others, 1),)
    else:
        found = value_of(values, "rejected_response")
        texts = found if isinstance(found, list) else [found]
        rejected = tuple(_answer(text, "rejected_response") for text in texts)
    if not rejected:
        raise BadRow("empty", "a list without a text", "rejected_response")
    return Preference(turns.first_question(), _said(turns, 1), rejected)


def _rlaif_v(values: Json) -> Preference:
    question = _question(value_of(values, "question"), "question")
    rejected = _reply(value_of(values, "rejected"), "rejected")
    return Preference(question, _reply(value_of(values, "chosen"), "chosen"), (rejected,))


def _own(values: Json) -> Preference:
    if values.get("context"):
        detail = "this pair goes on behind the beginning of an answer; make it where it was made"
        raise BadRow("a context", detail, "context")
    found = value_of(values, "rejected")
    texts = found if isinstance(found, list) else [found]
    if not texts:
        raise BadRow("empty", "a list without a text", "rejected")
    rejected = tuple(_answer(text, "rejected") for text in texts)
    question = spoken(text_of(values, "prompt"), "prompt")
    return Preference(question, _answer(value_of(values, "chosen"), "chosen"), rejected)


READERS: dict[str, Callable[[Json], Preference]] = {
    "trl": _trl,
    "ms_swift": _ms_swift,
    "rlaif_v": _rlaif_v,
    "seva_exp": _own,
}


def _asked(turns: Turns) -> str:
    """The one question."""
    if len(turns.items) != 1:
        raise BadRow("several turns", f"{len(turns.items)}, one question is needed", turns.field)
    return turns.first_question()


def _question(value: object, name: str) -> str:
    text = as_text(value, name).replace(TOKEN, "", 1).strip()
    return spoken(as_text(text, name), name)


def _said(turns: Turns, place: int) -> str:
    return turns.utterance(place, ("gpt", "assistant"))


def _reply(value: object, name: str) -> str:
    """An answer: a text, a turn, or a list of one turn."""
    one = only(value, name) if isinstance(value, list) else value
    if isinstance(one, dict):
        return _said(Turns(name, [one]), 0)
    return _answer(one, name)


def _answer(value: object, name: str) -> str:
    return spoken(as_text(value, name), name).strip()


def image_field(values: Json | Mapping[str, object] | list[str]) -> str:
    """The key of the picture."""
    return "images" if "images" in values else "image"


def picture_in(value: object, name: str) -> object:
    """The path in what ``images`` holds: a text, or an object with ``path``."""
    found = only(value, name)
    if isinstance(found, dict):
        if isinstance(found.get("path"), str):
            return found["path"]
        raise BadRow("not a path", f"an object with {', '.join(found)}; 'path' is needed", name)
    return found


def described(folder: Path, where: str) -> tuple[Path, Naming]:
    """The preference file that ``dataset_info.json`` in ``folder`` names, and how its columns are
    called. Raises InputError where it names none, or several."""
    found = _entries(folder / INFO, where)
    ranked = {name: one for name, one in found.items() if one.get("ranking") is True}
    if len(ranked) != 1:
        names = ", ".join(sorted(ranked))
        raise InputError(
            f"{where}.path: {str(folder / INFO)!r} has {len(ranked)} data sets with ranking: true"
            f"{f' ({names})' if names else ''}; give the file of one of them."
        )
    ((name, entry),) = ranked.items()
    if not isinstance(entry.get("file_name"), str):
        raise InputError(
            f"{where}.path: {str(folder / INFO)!r}: {name}: file_name is missing. Download the "
            "data set, and give its file."
        )
    return folder / entry["file_name"], _naming(entry)


def naming_of(file: Path, where: str) -> Naming:
    """How the columns of a file are called, by ``dataset_info.json`` beside it, if there is one."""
    info = file.parent / INFO
    if not info.is_file():
        return Naming()
    of = [one for one in _entries(info, where).values() if one.get("file_name") == file.name]
    return _naming(of[0]) if of else Naming()


def _naming(entry: Json) -> Naming:
    parts = [entry.get(name) for name in ("columns", "tags")]
    columns, tags = ({**part} if isinstance(part, dict) else {} for part in parts)
    return Naming(columns, {"role_tag": "from", "content_tag": "value"} | tags)


def _entries(info: Path, where: str) -> dict[str, Json]:
    try:
        content = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{where}.path: {str(info)!r} cannot be read: {error}.") from None
    found = content if isinstance(content, dict) else {}
    return {name: one for name, one in found.items() if isinstance(one, dict)}
