"""Protocols: how official benchmarks are asked and scored, each a YAML file with a few lines a
benchmark.

Some are packaged and known by name; a user names a file of their own by its path. A number never
stands without its protocol's name; that of a file of one's own ends in a digest of its content.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.printable import ends, one_line
from seva_exp.core.spec import Json, Spec, digest
from seva_exp.inputs.user_paths import yaml_mapping

PACKAGED = Path(__file__).parent / "protocols"
PLACEHOLDER = re.compile(r"\{(\w+)\}( ?)")


class Protocol(Spec):
    """One benchmark's part of a protocol."""

    prompt: str = Field(min_length=1)
    """What is sent. ``{question}`` and others are filled in; a line of whose placeholders none has
    content is left out, and so is the blank behind one without."""
    rule: str
    """How an answer is read and scored: one of the benchmark's rules."""
    max_new_tokens: int = Field(ge=1)
    """Longest answer in tokens."""
    circular: bool = False
    """A question counts once, and only where every rotation of its options is answered right."""
    pooled: bool = False
    """POPE: its splits' answers are scored as one set; else the mean over the splits is taken."""
    pictures_only: bool = False
    """HallusionBench: questions without a picture are left out."""
    judge: str | None = None
    """How a judge, where there is one, is asked about what no rule reads: one of the benchmark's
    ways. It decides no answer of the model."""

    def identity(self) -> Json:
        """All that decides questions, answers and scores."""
        left_out = {"judge"} if self.pictures_only else {"judge", "pictures_only"}
        return {name: value for name, value in self.to_json().items() if name not in left_out}

    def render(self, texts: dict[str, str]) -> str:
        """The prompt with its placeholders filled in, once: braces in the texts stay."""
        kept = []
        for line in self.prompt.split("\n"):
            names = [name for name, _ in PLACEHOLDER.findall(line)]
            if not names or any(texts[name] for name in names):
                kept.append(PLACEHOLDER.sub(lambda at: texts[at[1]] and texts[at[1]] + at[2], line))
        return "\n".join(kept)

    def placeholders(self) -> set[str]:
        """The names that the prompt fills in."""
        return {name for name, _ in PLACEHOLDER.findall(self.prompt)}


def packaged_protocols(kind: str | None = None) -> list[str]:
    """Names of the protocols that come with the package (for one benchmark)."""
    files = sorted(PACKAGED.glob("*.yaml"))
    return [file.stem for file in files if kind is None or kind in _content(file, "protocol")]


def load_protocol(
    protocol: str,
    kind: str,
    rules: Collection[str],
    texts: Collection[str],
    judgings: Collection[str],
    field: str,
) -> tuple[str, Protocol]:
    """The name that scores bear, and how the benchmark ``kind`` is asked and scored. ``rules``,
    ``texts`` (placeholders) and ``judgings`` are those that it has; ``field`` is named in the
    InputError that says what is wrong."""
    packaged = protocol in packaged_protocols()
    file = PACKAGED / f"{protocol}.yaml" if packaged else _own_file(protocol, kind, field)
    where = f"{field}: {str(file)!r}"
    content = _content(file, where)
    if kind not in content:
        others = packaged_protocols(kind)
        raise InputError(
            f"{field}={protocol}: says nothing about {kind}. {kind} has: {', '.join(others)}."
        )
    try:
        found = Protocol.model_validate(content[kind])
    except ValidationError as error:
        detail = error.errors()[0]
        path = ".".join([kind, *map(str, detail["loc"])])
        message = detail["msg"]
        raise InputError(f"{where}: {path}: {message[0].lower()}{message[1:]}.") from None
    check_protocol(found, kind, rules, texts, judgings, where)
    return (protocol if packaged else f"{file.stem}.{digest(found.identity())[:8]}"), found


def check_protocol(
    found: Protocol,
    kind: str,
    rules: Collection[str],
    texts: Collection[str],
    judgings: Collection[str],
    where: str,
) -> None:
    """Raises InputError, which begins with ``where``, for what the benchmark does not have: as
    ``load_protocol``."""
    if found.rule not in rules:
        raise InputError(
            f"{where}: {kind}.rule={_named(found.rule)}: no such rule.{suggest(found.rule, rules)}"
        )
    if found.judge is not None and found.judge not in judgings:
        raise InputError(
            f"{where}: {kind}.judge={_named(found.judge)}: no such way."
            f"{suggest(found.judge, judgings)}"
        )
    if texts and not found.placeholders():
        known = " or ".join(f"{{{name}}}" for name in texts)
        raise InputError(f"{where}: {kind}.prompt: asks nothing; it must fill in {known}.")
    for name in sorted(found.placeholders() - set(texts)):
        raise InputError(
            f"{where}: {kind}.prompt: no text {{{_named(name)}}}.{suggest(name, texts)}"
        )


def _named(word: str) -> str:
    """A file's word in a message."""
    return ends(one_line(word))


def _own_file(protocol: str, kind: str, field: str) -> Path:
    file = Path(protocol).expanduser()
    if file.is_file():
        return file
    raise InputError(
        f"{field}={protocol}: no such protocol.{suggest(protocol, packaged_protocols(kind))} "
        "A file of your own is named by its path."
    )


def _content(file: Path, where: str) -> dict[Any, Any]:
    needed = "a mapping from benchmarks to prompt, rule ... is needed."
    return yaml_mapping(file, where, needed)
