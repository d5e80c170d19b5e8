"""Specs: what is computed, as frozen, strictly validated values with one canonical JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, GetJsonSchemaHandler
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


def one_of(classes: Mapping[str, type[Spec]]) -> Any:
    """The type of a config's field whose value is one of these specs, by its ``kind``."""
    return Annotated[Union[tuple(classes.values())], BY_KIND]  # noqa: UP007 (of a tuple)


def canonical(value: object) -> str:
    """One JSON text per value: sorted keys, no spaces, no NaN. Two equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """SHA-256 (hex, 64 characters) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
