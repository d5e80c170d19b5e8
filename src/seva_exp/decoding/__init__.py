"""Answers of a model: a continuous-batching scheduler with prefix sharing, transformers' generate,
or a server. Nothing here knows what the answers are for."""

from typing import Annotated

from seva_exp.core.spec import BY_KIND, Spec, by_kind
from seva_exp.decoding.spec import HfGeneration, ServerGeneration

_Union = HfGeneration | ServerGeneration

AnyGeneration = Annotated[_Union, BY_KIND]
"""The field type of a config that holds how answers are decoded."""
GENERATION: dict[str, type[Spec]] = by_kind(_Union)
"""kind -> class."""
