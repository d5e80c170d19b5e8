"""Asking a model: specs of the engines, and of the filters that make pairs of answers."""

from seva_exp.generation.filters import FILTERS, AnyFilter, EqualFilter, Filter, named_filter
from seva_exp.generation.spec import HfGeneration, Newlines
from seva_exp.spec import Spec

GENERATION: dict[str, type[Spec]] = {"hf": HfGeneration}
AnyGeneration = HfGeneration

__all__ = [
    "FILTERS",
    "GENERATION",
    "AnyFilter",
    "AnyGeneration",
    "EqualFilter",
    "Filter",
    "HfGeneration",
    "Newlines",
    "named_filter",
]
