"""Families of models, one a file: what is special about each. A file that is put here is found; its
classes say of which ``model_type`` they are the family."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeGuard

from seva_exp.core.modules import modules_of
from seva_exp.models.family import Family


@cache
def families() -> dict[str, Family]:
    """By transformers' ``model_type``. Raises ValueError where two classes name the same."""
    found: dict[str, Family] = {}
    for module in modules_of(__name__):
        for cls in filter(_is_family, vars(module).values()):
            if cls.__module__ != module.__name__:
                continue  # it is only imported there
            for name in cls.model_types:
                if name in found:
                    raise ValueError(f"{name}: named by {cls} and by {type(found[name])}")
                found[name] = cls()
    return found


def _is_family(value: object) -> TypeGuard[type[Family]]:
    return isinstance(value, type) and issubclass(value, Family)


def family_of(config: Any) -> Family:
    """The family of a model's config; one that is not here is taken as most are."""
    return families().get(config.model_type, Family())
