"""Asking a model: specs of the engines, and of the filters that make pairs of answers."""

from typing import Annotated

from pydantic import Field

from seva_exp.generation.filters import (
    FILTERS,
    AnyFilter,
    EqualFilter,
    Filter,
    LengthRatioFilter,
    named_filter,
)
from seva_exp.generation.spec import HfGeneration, Newlines, ServerGeneration
from seva_exp.spec import Spec

GENERATION: dict[str, type[Spec]] = {"hf": HfGeneration, "server": ServerGeneration}
AnyGeneration = Annotated[HfGeneration | ServerGeneration, Field(discriminator="kind")]

__all__ = [
    "FILTERS",
    "GENERATION",
    "AnyFilter",
    "AnyGeneration",
    "EqualFilter",
    "Filter",
    "HfGeneration",
    "LengthRatioFilter",
    "Newlines",
    "ServerGeneration",
    "named_filter",
]
