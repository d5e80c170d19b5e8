"""Specs: what is computed, as frozen, strictly validated values with one canonical JSON form."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

Json = dict[str, Any]


class Spec(BaseModel):
    """Base of every configurable value: immutable, no unknown keys, no silent type conversion."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,  # an error message tells what the field is
    )

    def to_json(self) -> Json:
        """Every field, defaults included, as plain JSON types (the value, not its difference)."""
        return self.model_dump(mode="json")


def canonical(value: object) -> str:
    """One JSON text per value: sorted keys, no spaces, no NaN. Two equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """SHA-256 (hex, 64 characters) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
