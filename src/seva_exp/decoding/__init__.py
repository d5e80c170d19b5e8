"""Answers of a model: a continuous-batching scheduler with prefix sharing, transformers' generate,
a server, or a vLLM of the run's own. Nothing here knows what the answers are for."""

from typing import Annotated

from seva_exp.core.spec import BY_KIND, Spec, by_kind
from seva_exp.decoding.contrast import CONTRASTS, Contrast
from seva_exp.decoding.spec import HfGeneration, ServerGeneration, VllmGeneration

_Union = HfGeneration | ServerGeneration | VllmGeneration

AnyGeneration = Annotated[_Union, BY_KIND]
"""The field type of a config that holds how answers are decoded."""
GENERATION: dict[str, type[Spec]] = by_kind(_Union)
"""kind -> class."""

__all__ = [
    "CONTRASTS",
    "GENERATION",
    "AnyGeneration",
    "Contrast",
    "HfGeneration",
    "ServerGeneration",
    "VllmGeneration",
]
