"""Families of models, one a file: what is special about each. A file that is put here is found; its
classes say of which ``model_type`` they are the family."""

from __future__ import annotations

from functools import cache
from typing import Any

from seva_exp.core.modules import by_name, classes_of
from seva_exp.models.family import Family


@cache
def families() -> dict[str, Family]:
    """By transformers' ``model_type``. Raises ValueError where two classes name the same."""
    classes = classes_of(__name__, Family)
    return by_name((name, cls()) for cls in classes for name in cls.model_types)


def family_of(config: Any) -> Family:
    """The family of a model's config; one that is not here is taken as most are."""
    return families().get(config.model_type, Family())


def is_proven(text: str) -> bool:
    """Whether our own attention is exact in a language model of this ``model_type``: one that is
    proven in one family is so in all, since pictures do not change it."""
    return any(text in family.proven for family in families().values())


__all__ = ["Family", "families", "family_of", "is_proven"]
