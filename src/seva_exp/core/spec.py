"""Specs: what is computed, as frozen, strictly validated values with one canonical JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from seva_exp.core.field_docs import field_docs
from seva_exp.core.modules import by_name

Json = dict[str, Any]


class Spec(BaseModel):
    """Base of every configurable value: immutable, no unknown keys, no silent type conversion."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,  # a validator is built when it is first used: --help needs few
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """With what its fields mean."""
        found = handler(schema)
        properties = handler.resolve_ref_schema(found).get("properties", {})
        for name, text in field_docs(cls).items():
            properties[name].setdefault("description", text)
        return found

    def to_json(self) -> Json:
        """Every field, defaults included, as plain JSON types (the value, not its difference)."""
        return self.model_dump(mode="json")


SomeSpec = TypeVar("SomeSpec", bound=Spec)
BY_KIND = Discriminator("kind")
"""In ``Annotated[A | B, BY_KIND]``: the type of a config's field whose value is one of several
specs; its ``kind`` tells which."""


def by_kind(union: Any) -> dict[str, Any]:
    """kind -> class, of the classes of such a union in its order. Each has its kind as the default
    of its field ``kind``."""
    return {cls.model_fields["kind"].default: cls for cls in get_args(union)}


def kinds(classes: Iterable[type[SomeSpec]]) -> dict[str, type[SomeSpec]]:
    """kind -> class, of those classes whose field ``kind`` has a default: the others are bases.
    Raises ValueError where two have the same."""
    defaults = ((cls.model_fields["kind"].default, cls) for cls in classes)
    return by_name((kind, cls) for kind, cls in defaults if isinstance(kind, str))


@dataclass(frozen=True, eq=False)
class OneOf:
    """In ``Annotated[Any, OneOf(classes)]``: one of the specs that ``classes`` holds when the type
    is looked at first; ``renew`` has it look again."""

    classes: Mapping[str, type[Spec]]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        union: Any = Annotated[Union[tuple(self.classes.values())], BY_KIND]  # noqa: UP007 (a tuple)
        return handler.generate_schema(union)


def one_of(classes: Mapping[str, type[Spec]]) -> Any:
    """The type of a config's field whose value is one of these specs, by its ``kind``. What is put
    into ``classes`` later is known from the next ``renew`` on."""
    return Annotated[Any, OneOf(classes)]


def renew(base: type[Spec] = Spec) -> None:
    """Have the specs that were looked at already look again at the classes of their fields: some
    were added to what ``one_of`` was given."""
    held: dict[type[Spec], bool] = {}
    for cls in list(_heirs(base)):
        _holds(cls, held)
    for cls, holds in held.items():  # those in a class's fields come before the class
        if holds and cls.__pydantic_complete__:
            cls.model_rebuild(force=True)


def _heirs(cls: type[Spec]) -> Iterator[type[Spec]]:
    for heir in cls.__subclasses__():
        yield heir
        yield from _heirs(heir)


def _holds(cls: type[Spec], held: dict[type[Spec], bool]) -> bool:
    """Whether some field of a class holds a ``OneOf``, however deep."""
    if cls not in held:
        parts = [
            part
            for field in cls.model_fields.values()
            for part in (*_parts(field.annotation), *field.metadata)
        ]
        inner = [one for one in parts if isinstance(one, type) and issubclass(one, Spec)]
        found = [_holds(one, held) for one in inner if one is not cls]
        held[cls] = any(found) or any(isinstance(one, OneOf) for one in parts)
    return held[cls]


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _parts(part)


def flatten(values: Json, before: str = "", between: str = "/") -> list[tuple[str, Any]]:
    """Nested values as (joined name, plain value); an empty group stays a value."""
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat += flatten(value, f"{before}{key}{between}", between)
        else:
            flat.append((f"{before}{key}", value))
    return flat


def canonical(value: object) -> str:
    """One JSON text per value: sorted keys, no spaces, no NaN. Two equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """SHA-256 (hex, 64 characters) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
