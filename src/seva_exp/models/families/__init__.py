"""Families of models, one a file: what is special about each. A file that is put here is found; its
classes say of which ``model_type`` they are the family."""

from __future__ import annotations

from functools import cache
from typing import Any

from seva_exp.core.modules import classes_of
from seva_exp.models.family import Family


@cache
def families() -> dict[str, Family]:
    """By transformers' ``model_type``. Raises ValueError where two classes name the same."""
    found: dict[str, Family] = {}
    for cls in classes_of(__name__, Family):
        for name in cls.model_types:
            if name in found:
                raise ValueError(f"{name}: named by {cls} and by {type(found[name])}")
            found[name] = cls()
    return found


def family_of(config: Any) -> Family:
    """The family of a model's config; one that is not here is taken as most are."""
    return families().get(config.model_type, Family())
